#include "json.hpp"

#include <array>
#include <cctype>
#include <cstdio>
#include <set>
#include <stdexcept>
#include <vector>

#include "convexport/errors.hpp"
#include "unicode.hpp"

namespace convexport {
namespace {

constexpr int kDeepest = 500;

// The four hex digits of an escape, or -1.
long escape_at(const std::string& text, std::size_t at) {
  if (at + 6 > text.size() || text[at] != '\\' || text[at + 1] != 'u') return -1;
  const std::string digits = text.substr(at + 2, 4);
  for (const char digit : digits) {
    if (!std::isxdigit(static_cast<unsigned char>(digit))) return -1;
  }
  return std::stol(digits, nullptr, 16);
}

// A manifest may name files that are no Unicode: Python writes lone surrogates for them, which the
// parser refuses. They become U+FFFF, which no name of a file in a bundle may hold either.
void replace_lone_surrogates(std::string& text) {
  for (std::size_t at = text.find('\\'); at < text.size(); at = text.find('\\', at)) {
    const long code = escape_at(text, at);
    if (code < 0xd800 || code > 0xdfff) {
      at += 2;
      continue;
    }
    const long next = escape_at(text, at + 6);
    if (code < 0xdc00 && next >= 0xdc00 && next <= 0xdfff) {
      at += 12;
    } else {
      text.replace(at + 2, 4, "FFFF");
      at += 6;
    }
  }
}

// Python's way to write a value.
// NOLINTNEXTLINE(misc-no-recursion): as deep as the parser let it be
std::string python(const Json& value, bool tuples, std::size_t most, bool inner) {
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_string()) {
    return inner ? quoted(value.get<std::string>()) : value.get<std::string>();
  }
  if (!value.is_structured()) return value.dump();
  std::string text;
  for (const auto& [key, each] : value.items()) {
    text += text.empty() ? "" : ", ";
    if (value.is_object()) text += quoted(key) + ": ";
    text += python(each, tuples, most, true);
    if (text.size() > 8 * most) break;  // it is cut anyway
  }
  if (value.is_object()) return "{" + text + "}";
  if (!tuples) return "[" + text + "]";
  return "(" + text + (value.size() == 1 ? ",)" : ")");
}

}  // namespace

Json parse_json(std::string text, const std::string& name, const std::string& where) {
  replace_lone_surrogates(text);
  std::vector<std::set<std::string>> keys;
  const auto check = [&keys](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kDeepest) throw std::runtime_error("nested too deeply");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second) {
      throw std::runtime_error("a key occurs twice: " + quoted(value.get<std::string>()));
    }
    return true;
  };
  try {
    // The parser would skip a byte order mark, which Python does not.
    if (text.compare(0, 3, "\xef\xbb\xbf") == 0) throw std::runtime_error("a byte order mark");
    return Json::parse(text, check);
  } catch (const std::exception& error) {
    throw InputError("E0302", name + " is not readable JSON: " + error.what(), where);
  }
}

std::string shown(const Json& value, bool tuples, std::size_t most) {
  std::string text = python(value, tuples, most, false);
  auto codes = decode_utf8(text);
  if (!codes || codes->size() <= most) return text;
  codes->resize(most);
  return encode_utf8(*codes);
}

std::string quoted(const std::string& text) {
  const bool single = text.find('\'') == std::string::npos;
  const bool other = !single && text.find('"') == std::string::npos;
  const char mark = other ? '"' : '\'';
  const auto codes = decode_utf8(text);
  if (!codes) return mark + text + mark;
  std::string inside;
  for (const char32_t code : *codes) {
    const std::u32string one(1, code);
    if (code == '\t' || code == '\n' || code == '\r') {
      inside += code == '\t' ? "\\t" : code == '\n' ? "\\n" : "\\r";
    } else if (!printable(one)) {
      const char* format = code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x";
      std::array<char, 16> escape{};
      (void)std::snprintf(escape.data(), escape.size(), format, static_cast<unsigned>(code));
      inside += escape.data();
    } else {
      if (code == '\\' || code == static_cast<char32_t>(mark)) inside.push_back('\\');
      inside += encode_utf8(one);
    }
  }
  return mark + inside + mark;
}

}  // namespace convexport
