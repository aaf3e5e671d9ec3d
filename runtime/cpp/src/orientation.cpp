// The orientation that a camera noted: TIFF 6.0, section 2, within EXIF data; or else in XMP.
#include "bytes.hpp"
#include "image_files.hpp"

namespace convexport {
namespace {

constexpr std::uint32_t kTag = 0x0112;
constexpr std::size_t kEntry = 12;

// What the entry at that place gives; nothing where it has no whole number.
std::optional<int> value_of(const std::string& tiff, std::size_t at, bool big) {
  const std::uint32_t type = number(tiff, at + 2, 2, big), values = number(tiff, at + 4, 4, big);
  const bool is_short = type == 3 || type == 8, is_long = type == 4 || type == 9;
  if ((!is_short && !is_long) || values == 0) return std::nullopt;
  const std::size_t unit = is_short ? 2 : 4;
  std::size_t place = at + 8;
  if (std::uint64_t{values} * unit > 4) {
    place = number(tiff, place, 4, big);
    if (place > tiff.size() || tiff.size() - place < std::uint64_t{values} * unit) {
      return std::nullopt;
    }
  }
  const std::uint32_t value = number(tiff, place, unit, big);
  return value <= 8 ? static_cast<int>(value) : 0;
}

struct Found {
  bool readable = true;
  std::optional<int> value;
};

Found in_exif(std::string tiff) {
  const std::string marker("Exif\0\0", 6);
  for (int i = 0; i < 2 && tiff.compare(0, 6, marker) == 0; ++i) tiff.erase(0, 6);
  if (tiff.empty()) return {};
  const std::string order = tiff.substr(0, 2);
  const bool big = order == "MM";
  if (tiff.size() < 8 || (!big && order != "II")) return {false, std::nullopt};
  const unsigned version = byte_at(tiff, 2) + byte_at(tiff, 3);
  if (version != 42) return {false, std::nullopt};
  const std::size_t first = number(tiff, 4, 4, big);
  if (first + 2 > tiff.size()) return {};
  const std::size_t entries = number(tiff, first, 2, big);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t at = first + 2 + i * kEntry;
    if (at + kEntry > tiff.size()) break;
    if (number(tiff, at, 2, big) != kTag) continue;
    if (const auto value = value_of(tiff, at, big)) return {true, value};
  }
  return {};
}

}  // namespace

int orientation(const ImageHeader& header) {
  if (header.unreadable) return 1;
  const Found found = in_exif(header.exif);
  if (!found.readable) return 1;
  if (found.value) return *found.value;
  for (const std::string start : {"tiff:Orientation=\"", "tiff:Orientation>"}) {
    for (std::size_t at = 0; (at = header.xmp.find(start, at)) != std::string::npos; ++at) {
      const std::size_t digit = at + start.size();
      if (digit < header.xmp.size() && header.xmp[digit] >= '0' && header.xmp[digit] <= '9') {
        return header.xmp[digit] - '0';
      }
    }
  }
  return 1;
}

}  // namespace convexport
