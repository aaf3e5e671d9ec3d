#include "image_files.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>

#include "files.hpp"

namespace convexport {
namespace {

constexpr off_t kLargestFile = off_t{1} << 30;
constexpr std::size_t kHead = 512;

struct Kind {
  const char* magic;
  const char* words;
};

// What often lies under another file's name, told by its first bytes; names lie.
constexpr const char* kHtml = "an HTML page";
constexpr const char* kXml = "an XML or SVG document";
constexpr Kind kForeign[] = {
    {"<!doctype html", kHtml},
    {"<html", kHtml},
    {"<head", kHtml},
    {"<!--", kHtml},
    {"<svg", kXml},
    {"<?xml", kXml},
    {"version https://git-lfs", "a Git LFS pointer (git lfs pull fetches the file itself)"},
    {"%pdf", "a PDF document"},
    {"\x1f\x8b", "a gzip archive (unpack it first)"},
    {"pk\x03\x04", "a zip archive"},
    {"\x7f"
     "elf",
     "an executable or library"},
};

const char* special(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a named pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return nullptr;
}

const char* foreign_kind(const std::string& head) {
  const std::size_t first = head.find_first_not_of("\xef\xbb\xbf \t\r\n");
  std::string start = first == std::string::npos ? "" : head.substr(first);
  std::transform(start.begin(), start.end(), start.begin(),
                 [](unsigned char byte) { return static_cast<char>(std::tolower(byte)); });
  for (const Kind& kind : kForeign) {
    if (start.compare(0, std::strlen(kind.magic), kind.magic) == 0) return kind.words;
  }
  return nullptr;
}

void require_regular(const struct stat& status, const std::filesystem::path& path) {
  if (const char* kind = special(status.st_mode)) {
    throw InputError("E0311", std::string("this is ") + kind + ", not an image file",
                     path.string());
  }
  if (status.st_size > kLargestFile) {
    throw InputError(
        "E0309",
        "the file is too large: " + std::to_string(status.st_size >> 20) + " MiB, at most 1024",
        path.string());
  }
}

}  // namespace

std::string read_image_file(const std::filesystem::path& path) {
  const auto cannot = [&](const std::string& reason) {
    return InputError("E0311", "cannot read the image: " + reason, path.string());
  };
  // Looked at before it is opened: opening a device can already do something.
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) throw cannot(std::strerror(errno));
  require_regular(status, path);
  std::string reason;
  auto bytes = read_file(path, static_cast<std::size_t>(kLargestFile), reason,
                         [&path](const struct stat& opened) { require_regular(opened, path); });
  if (!bytes) throw cannot(reason);
  return std::move(*bytes);
}

InputError not_an_image(const std::string& file, const std::string& name) {
  const std::string head = file.substr(0, kHead);
  if (const char* kind = foreign_kind(head)) {
    return InputError("E0313", std::string("this is ") + kind + ", not an image", name);
  }
  const bool text = std::all_of(head.begin(), head.end(), [](char byte) {
    return byte == '\t' || byte == '\r' || byte == '\n' || (byte >= 32 && byte < 127);
  });
  return InputError(
      "E0313", text ? "this is text, not an image" : "no image format that we read fits this file",
      name, "", "images are JPEG, PNG; the Python side reads more");
}

InputError broken_image(const std::string& why, const std::string& name) {
  return InputError("E0314", "the image is cut or corrupt: " + why, name);
}

}  // namespace convexport
