#include "npy.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "files.hpp"

namespace convexport {
namespace {

constexpr std::size_t kLargest = std::size_t{1} << 30;
constexpr std::size_t kLongestHeader = 1000;  // those of four dimensions have 128

[[noreturn]] void fail(const std::string& why) { throw std::runtime_error(why); }

// Where the header begins and ends. Its length has two bytes in version 1, four in later ones.
std::pair<std::size_t, std::size_t> header_of(const std::string& bytes) {
  const std::string magic = "\x93NUMPY";
  if (bytes.size() < 12 || bytes.compare(0, magic.size(), magic) != 0) fail("it is no .npy file");
  const std::size_t digits = bytes[6] == 1 ? 2 : 4, start = 8 + digits;
  std::size_t length = 0;
  for (std::size_t i = start; i-- > 8;) {
    length = length << 8 | static_cast<unsigned char>(bytes[i]);
  }
  if (length > kLongestHeader || start + length > bytes.size()) fail("its header is cut");
  return {start, start + length};
}

Shape shape_of(const std::string& header) {
  const std::string start = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  const std::size_t end = header.find(')');
  if (header.compare(0, start.size(), start) != 0 || end == std::string::npos) {
    fail("it is not float32 in C order: " + header.substr(0, header.find('}') + 1));
  }
  const std::string dims = header.substr(start.size(), end - start.size());
  if (dims.find_first_not_of("0123456789, ") != std::string::npos) fail("its shape is " + dims);
  Shape shape;
  for (std::size_t at = 0; (at = dims.find_first_of("0123456789", at)) != std::string::npos;) {
    const std::size_t stop = std::min(dims.find_first_of(", ", at), dims.size());
    if (stop - at > 9) fail("a dimension is too large");
    shape.push_back(std::stoll(dims.substr(at, stop - at)));
    at = stop;
  }
  return shape;
}

}  // namespace

Tensor read_npy(const std::filesystem::path& path) {
  std::string reason;
  const auto bytes = read_file(path, kLargest, reason);
  if (!bytes) fail(reason);
  const auto [start, end] = header_of(*bytes);
  Tensor array{shape_of(bytes->substr(start, end - start)), {}};
  const std::size_t left = (bytes->size() - end) / sizeof(float);
  std::size_t values = 1;
  for (const std::int64_t dim : array.shape) {
    if (dim > 0 && values > left / static_cast<std::size_t>(dim)) fail("its values are cut");
    values *= static_cast<std::size_t>(dim);
  }
  if (values > left) fail("its values are cut");
  array.values.resize(values);
  if (values > 0) std::memcpy(array.values.data(), bytes->data() + end, values * sizeof(float));
  return array;
}

}  // namespace convexport
