// The orientation that a camera noted: TIFF 6.0, section 2, within EXIF data; or else in XMP.
#include <array>
#include <cctype>
#include <cstring>
#include <set>

#include "bytes.hpp"
#include "image_files.hpp"

namespace convexport {
namespace {

constexpr std::uint32_t kTag = 0x0112;
constexpr std::size_t kEntry = 12;
// Bytes of a value of each type; 0 where there is no such type.
constexpr std::array<std::size_t, 17> kUnits = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};

template <typename To, typename From>
double bits_as(From bits) {
  static_assert(sizeof(To) == sizeof(From));
  To value{};
  std::memcpy(&value, &bits, sizeof value);
  return static_cast<double>(value);
}

// The number at that place; 0 where its type is none of numbers.
double value_at(const std::string& tiff, std::size_t at, std::uint32_t type, bool big) {
  const std::size_t unit = kUnits[type];
  const std::uint32_t first = number(tiff, at, std::min<std::size_t>(unit, 4), big);
  const std::uint32_t second = unit == 8 ? number(tiff, at + 4, 4, big) : 0;
  const std::uint64_t both = std::uint64_t{big ? first : second} << 32 | (big ? second : first);
  switch (type) {
    case 5:
      return static_cast<double>(first) / static_cast<double>(second);
    case 10:
      return bits_as<std::int32_t>(first) / bits_as<std::int32_t>(second);
    case 11:
      return bits_as<float>(first);
    case 12:
      return bits_as<double>(both);
    case 16:
      return static_cast<double>(both);
    default:  // bytes and texts are no numbers; what is negative is no orientation either way
      return type == 1 || type == 2 || type == 7 ? 0 : first;
  }
}

// The orientation that a number stands for: 1 unless it turns.
int turn(double value) {
  for (int each = 2; each <= 8; ++each) {
    if (value == each) return each;
  }
  return 1;
}

struct Found {
  bool readable = true;
  std::optional<int> value;
};

// Entries as Pillow keeps them: the first of a tag; none that points to more than there is in all,
// and none behind one whose value is cut.
std::optional<int> in_directory(const std::string& tiff, std::size_t first, bool big) {
  if (first + 2 > tiff.size()) return std::nullopt;
  const std::size_t entries = number(tiff, first, 2, big);
  std::set<std::uint32_t> tags;
  std::uint64_t elsewhere = 0;
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t at = first + 2 + i * kEntry;
    if (at + kEntry > tiff.size()) break;
    const std::uint32_t tag = number(tiff, at, 2, big), type = number(tiff, at + 2, 2, big);
    if (type >= kUnits.size() || tags.count(tag) > 0) continue;
    const std::uint64_t size = std::uint64_t{number(tiff, at + 4, 4, big)} * kUnits[type];
    std::size_t place = at + 8;
    if (size > 4) {
      elsewhere += size;
      if (elsewhere > tiff.size()) continue;
      place = number(tiff, place, 4, big);
      if (place > tiff.size() || tiff.size() - place < size) break;
    }
    if (size == 0) continue;
    if (tag == kTag) return turn(value_at(tiff, place, type, big));
    tags.insert(tag);
  }
  return std::nullopt;
}

Found in_exif(std::string tiff) {
  const std::string marker("Exif\0\0", 6);
  for (int i = 0; i < 2 && tiff.compare(0, 6, marker) == 0; ++i) tiff.erase(0, 6);
  if (tiff.empty()) return {};
  const std::string order = tiff.substr(0, 2);
  const bool big = order == "MM";
  if (tiff.size() < 8 || (!big && order != "II")) return {false, std::nullopt};
  const unsigned version = byte_at(tiff, 2) + byte_at(tiff, 3);
  if (version != 42) return {false, std::nullopt};
  return {true, in_directory(tiff, number(tiff, 4, 4, big), big)};
}

// EXIF data that ImageMagick put into a text: three lines, then hex digits. None if they are not.
std::optional<std::string> in_profile(const std::string& text) {
  std::size_t at = 0;
  for (int line = 0; line < 3 && at != std::string::npos; ++line) {
    at = text.find('\n', at);
    if (at != std::string::npos) ++at;
  }
  std::string digits, bytes;
  for (; at < text.size(); ++at) {
    if (text[at] != '\n') digits.push_back(text[at]);
  }
  const auto is = [&digits](int (*kind)(int), std::size_t place) {
    return place < digits.size() && kind(static_cast<unsigned char>(digits[place])) != 0;
  };
  for (std::size_t i = 0; i < digits.size();) {
    if (is(std::isspace, i)) {  // between bytes, not within one
      ++i;
      continue;
    }
    if (!is(std::isxdigit, i) || !is(std::isxdigit, i + 1)) return std::nullopt;
    bytes.push_back(static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16)));
    i += 2;
  }
  return bytes;
}

std::optional<int> in_xmp(const std::string& xmp) {
  const std::string tag = "tiff:Orientation";
  for (std::size_t at = 0; (at = xmp.find(tag, at)) != std::string::npos;) {
    at += tag.size();
    const std::size_t digit = at + (xmp.compare(at, 2, "=\"") == 0 ? 2 : 1);
    if (digit == at + 1 && xmp.compare(at, 1, ">") != 0) continue;
    if (digit < xmp.size() && xmp[digit] >= '0' && xmp[digit] <= '9') return xmp[digit] - '0';
  }
  return std::nullopt;
}

}  // namespace

int orientation(const ImageHeader& header) {
  std::optional<std::string> exif = header.exif;
  if (!exif && header.profile) {
    exif = in_profile(*header.profile);
    if (!exif) return 1;
  }
  const Found found = in_exif(exif.value_or(""));
  if (!found.readable) return 1;
  return found.value.value_or(in_xmp(header.xmp).value_or(1));
}

}  // namespace convexport
