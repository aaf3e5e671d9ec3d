#include "unicode.hpp"

#include <algorithm>
#include <array>

namespace convexport {
namespace {

struct Range {
  char32_t first, last;
};

// Blocks of Unicode's categories C* and Z*, but for code points that are not assigned yet.
constexpr std::array<Range, 15> kUnprintable = {{{0x00, 0x1f},
                                                 {0x7f, 0xa0},
                                                 {0xad, 0xad},
                                                 {0x600, 0x605},
                                                 {0x61c, 0x61c},
                                                 {0x6dd, 0x6dd},
                                                 {0x1680, 0x1680},
                                                 {0x180e, 0x180e},
                                                 {0x2000, 0x200f},
                                                 {0x2028, 0x202f},
                                                 {0x205f, 0x206f},
                                                 {0x3000, 0x3000},
                                                 {0xd800, 0xf8ff},
                                                 {0xfeff, 0xfeff},
                                                 {0xfff0, 0xfffb}}};

bool prints(char32_t code) {
  if ((code & 0xfffe) == 0xfffe || code >= 0xe0000) return false;
  return std::none_of(kUnprintable.begin(), kUnprintable.end(), [code](const Range& range) {
    return range.first <= code && code <= range.last;
  });
}

}  // namespace

std::optional<std::u32string> decode_utf8(const std::string& text) {
  // By the number of bytes that follow the first: its bits that count, the least that is allowed.
  constexpr std::array<unsigned, 4> kBits = {0x7f, 0x1f, 0x0f, 0x07};
  constexpr std::array<char32_t, 4> kLeast = {0, 0x80, 0x800, 0x10000};
  std::u32string codes;
  for (std::size_t at = 0; at < text.size();) {
    const auto first = static_cast<unsigned char>(text[at++]);
    if ((first >= 0x80 && first < 0xc0) || first >= 0xf8) return std::nullopt;
    const std::size_t more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    char32_t code = first & kBits[more];
    for (std::size_t i = 0; i < more; ++i, ++at) {
      if (at == text.size() || (text[at] & 0xc0) != 0x80) return std::nullopt;
      code = code << 6 | (static_cast<unsigned char>(text[at]) & 0x3f);
    }
    const bool surrogate = code >= 0xd800 && code < 0xe000;
    if (code < kLeast[more] || code > 0x10ffff || surrogate) return std::nullopt;
    codes.push_back(code);
  }
  return codes;
}

std::string encode_utf8(const std::u32string& text) {
  std::string bytes;
  for (const char32_t code : text) {
    if (code < 0x80) {
      bytes.push_back(static_cast<char>(code));
      continue;
    }
    const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    const unsigned lead = more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0;
    bytes.push_back(static_cast<char>(lead | (code >> (6 * more))));
    for (int i = more - 1; i >= 0; --i) {
      bytes.push_back(static_cast<char>(0x80 | (code >> (6 * i) & 0x3f)));
    }
  }
  return bytes;
}

bool printable(const std::u32string& text) { return std::all_of(text.begin(), text.end(), prints); }

}  // namespace convexport
