// Reading and hashing files.
#pragma once

#include <sys/stat.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

namespace convexport {

constexpr const char* kSampleInput = "sample/input.npy";
constexpr const char* kSampleExpected = "sample/expected.npy";
constexpr const char* kLabels = "labels.txt";

// A file's bytes; none, and the reason, if it cannot be read or has more than the limit. Whoever
// looks at what was opened may throw.
std::optional<std::string> read_file(const std::filesystem::path& path, std::size_t limit,
                                     std::string& reason,
                                     const std::function<void(const struct stat&)>& look = {});

// The SHA-256 of a file's bytes in hex; none if it cannot be read.
std::optional<std::string> sha256_of(const std::filesystem::path& path);
// Of these bytes; none if libcrypto cannot.
std::optional<std::string> sha256_of_bytes(const std::string& bytes);

}  // namespace convexport
