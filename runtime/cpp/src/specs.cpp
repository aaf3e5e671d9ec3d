#include "convexport/specs.hpp"

#include <algorithm>
#include <limits>

namespace convexport {

bool TensorSpec::fits(const Shape& given) const {
  if (dtype != "float32" || given.size() != shape.size()) return false;
  for (std::size_t axis = 0; axis < given.size(); ++axis) {
    const auto* wanted = std::get_if<std::int64_t>(&shape[axis]);
    if (given[axis] < 1 || (wanted && *wanted != given[axis])) return false;
  }
  return true;
}

std::string TensorSpec::text() const {
  std::string dims;
  for (const Dim& dim : shape) {
    const auto* size = std::get_if<std::int64_t>(&dim);
    dims += (dims.empty() ? "" : "x") + (size ? std::to_string(*size) : std::get<1>(dim));
  }
  return name + ": " + dtype + " " + dims;
}

bool operator==(const TensorSpec& one, const TensorSpec& other) {
  const auto same = [](const Dim& a, const Dim& b) {
    return a.index() == b.index() && (a.index() == 1 || a == b);
  };
  return one.name == other.name && one.dtype == other.dtype &&
         std::equal(one.shape.begin(), one.shape.end(), other.shape.begin(), other.shape.end(),
                    same);
}

std::array<std::int64_t, 3> Preprocess::shape() const {
  return {static_cast<std::int64_t>(mean.size()), crop[0], crop[1]};
}

std::size_t count(const Shape& shape) {
  std::size_t total = 1;
  for (const std::int64_t dim : shape) {
    if (__builtin_mul_overflow(total, static_cast<std::size_t>(dim), &total)) {
      return std::numeric_limits<std::size_t>::max();
    }
  }
  return total;
}

std::string text(const Shape& shape) {
  std::string dims;
  for (const std::int64_t dim : shape) dims += (dims.empty() ? "" : "x") + std::to_string(dim);
  return dims;
}

}  // namespace convexport
