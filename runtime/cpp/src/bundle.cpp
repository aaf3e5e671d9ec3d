#include "convexport/bundle.hpp"

#include "convexport/errors.hpp"
#include "files.hpp"
#include "npy.hpp"
#include "unicode.hpp"

namespace convexport {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLargestLabels = std::size_t{64} << 20;

InputError changed(const fs::path& path, const std::string& what) {
  return InputError("E0306", path.filename().string() + " " + what, path.string(),
                    "what would run is not what was built and checked",
                    "build the bundle again, or copy it again from where it was built");
}

// Whether Python's splitlines would end a line there.
bool ends_line(char32_t code) {
  return (code >= 0x0a && code <= 0x0d) || (code >= 0x1c && code <= 0x1e) || code == 0x85 ||
         code == 0x2028 || code == 0x2029;
}

std::vector<std::string> lines(const std::u32string& text) {
  std::vector<std::string> found;
  std::u32string line;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!ends_line(text[i])) {
      line.push_back(text[i]);
      continue;
    }
    if (text[i] == U'\r' && i + 1 < text.size() && text[i + 1] == U'\n') ++i;
    found.push_back(encode_utf8(line));
    line.clear();
  }
  if (!line.empty()) found.push_back(encode_utf8(line));
  return found;
}

}  // namespace

void verify_files(const fs::path& bundle, const Manifest& manifest) {
  for (const auto& [name, expected] : manifest.files) {
    const fs::path path = bundle / name;
    std::error_code ignored;
    const bool link = fs::symlink_status(path, ignored).type() == fs::file_type::symlink;
    if (link || !fs::is_regular_file(path, ignored)) {
      throw changed(path, fs::exists(path, ignored) ? "is not a plain file" : "is missing");
    }
    const auto actual = sha256_of(path);
    if (!actual) throw changed(path, "cannot be read");
    if (*actual != expected) {
      throw changed(path, "has sha256 " + actual->substr(0, 12) + "…, the manifest says " +
                              expected.substr(0, 12) + "…");
    }
  }
}

std::vector<std::string> read_labels(const fs::path& bundle, const Manifest& manifest) {
  std::vector<std::string> labels;
  if (!manifest.files.count(kLabels)) {
    for (std::size_t i = 0; i < manifest.classes(); ++i) {
      labels.push_back("class " + std::to_string(i));
    }
    return labels;
  }
  const fs::path path = bundle / kLabels;
  std::string reason;
  const auto content = read_file(path, kLargestLabels, reason);
  if (!content) throw InputError("E0307", "the labels cannot be read: " + reason, path.string());
  const auto text = decode_utf8(*content);
  if (!text) throw InputError("E0307", "the labels are not UTF-8", path.string());
  labels = lines(*text);
  if (labels.size() != manifest.classes()) {
    throw InputError("E0307",
                     std::to_string(labels.size()) + " labels for " +
                         std::to_string(manifest.classes()) + " classes",
                     path.string());
  }
  return labels;
}

std::pair<Tensor, Tensor> read_golden(const fs::path& bundle, const Manifest& manifest) {
  const auto read = [&](const char* name, const TensorSpec& spec) {
    try {
      Tensor array = read_npy(bundle / name);
      if (!spec.fits(array.shape)) throw std::runtime_error("it should be " + spec.text());
      return array;
    } catch (const std::exception& error) {
      throw InputError("E0308", std::string(name) + " is not a usable array", bundle.string(),
                       error.what());
    }
  };
  return {read(kSampleInput, manifest.input), read(kSampleExpected, manifest.output)};
}

}  // namespace convexport
