// The values that are passed around: tensors, and the way from an image to one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace convexport {

using Shape = std::vector<std::int64_t>;
// A number, or a name where it may vary ("batch").
using Dim = std::variant<std::int64_t, std::string>;

// float32 in host memory, row by row.
struct Tensor {
  Shape shape;
  std::vector<float> values;
};

// Values that belong to the caller, row by row: std::span is younger than C++17.
template <typename T>
struct Span {
  T* data = nullptr;
  std::size_t size = 0;
};

// One input or output.
struct TensorSpec {
  std::string name;
  std::vector<Dim> shape;
  std::string dtype;

  // Whether float32 values of this shape fit, and are not none.
  bool fits(const Shape& given) const;
  std::string text() const;
};
// But for what a dimension that may vary is called: that is up to the runtime.
bool operator==(const TensorSpec& one, const TensorSpec& other);

// From a decoded image to the tensor that the net was trained on: resized with antialiasing,
// cropped at the centre, divided by 255, less the mean, divided by std.
struct Preprocess {
  std::array<std::int64_t, 2> crop;  // height, width
  std::vector<std::int64_t> resize;  // {n} scales the shorter side to n; {h, w} to exactly that
  bool bicubic = false;              // or bilinear
  std::string channels;              // RGB, BGR or L
  std::vector<float> mean, std;      // a value a channel
  bool exif = true;                  // turn as the EXIF orientation says

  std::array<std::int64_t, 3> shape() const;  // channels, height, width
};

// How many values a tensor of that shape has; the largest number where they are too many to count.
std::size_t count(const Shape& shape);
// 1x3x224x224.
std::string text(const Shape& shape);

}  // namespace convexport
