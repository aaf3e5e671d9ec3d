// As much of Unicode as it takes to refuse the names and labels that Python refuses.
#pragma once

#include <optional>
#include <string>

namespace convexport {

// The code points of strict UTF-8: no surrogates, nothing longer than need be; none if it is not.
std::optional<std::u32string> decode_utf8(const std::string& text);
std::string encode_utf8(const std::u32string& text);

// Whether nothing in a text is a control character, a separator other than a space, or for
// private use.
bool printable(const std::u32string& text);

}  // namespace convexport
