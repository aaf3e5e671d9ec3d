// JSON as Python's reader takes it, and values in the words of Python's messages.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace convexport {

using Json = nlohmann::json;

// Parse a document without NaN, duplicate keys or more than 500 levels.
// Throws InputError E0302: it is not such JSON.
Json parse_json(std::string text, const std::string& name, const std::string& where);

// A value as Python's str() shows it, lists as tuples where asked; cut to so many characters.
std::string shown(const Json& value, bool tuples = false, std::size_t most = 80);
// A text as Python's repr() shows it.
std::string quoted(const std::string& text);

}  // namespace convexport
