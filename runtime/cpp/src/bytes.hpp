// Walking through the bytes of a file without ever leaving them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

namespace convexport {

inline unsigned byte_at(const std::string& bytes, std::size_t at) {
  return static_cast<unsigned char>(bytes[at]);
}

// An unsigned number of one to four bytes.
inline std::uint32_t number(const std::string& bytes, std::size_t at, std::size_t size,
                            bool big = true) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < size; ++i) {
    value = value << 8 | byte_at(bytes, big ? at + i : at + size - 1 - i);
  }
  return value;
}

class Cursor {
 public:
  explicit Cursor(const std::string& bytes, std::size_t at = 0) : bytes_(bytes), at_(at) {}

  std::size_t left() const { return bytes_.size() - std::min(at_, bytes_.size()); }
  std::size_t position() const { return at_; }

  // The next bytes, or none if there are fewer: then nothing is passed.
  std::optional<std::string> take(std::size_t size) {
    if (left() < size) return std::nullopt;
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  // The next number of that many bytes, the highest first.
  std::optional<std::uint32_t> take_number(std::size_t size) {
    const auto taken = take(size);
    if (!taken) return std::nullopt;
    return number(*taken, 0, size);
  }

 private:
  const std::string& bytes_;
  std::size_t at_;
};

}  // namespace convexport
