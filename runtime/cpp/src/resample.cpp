// A filter is stretched by the factor by which the image shrinks, sampled at the centres of the
// pixels under it, made to sum to 1, and rounded to 22 bits behind the point. Rows are scaled
// before columns, but, since Pillow 13, columns first where an image gets much lower; in between
// pixels are rounded to 8 bits. The order of the operations on doubles is Pillow's too: so the
// roundings are.
#include "resample.hpp"

#include <algorithm>
#include <cmath>

namespace convexport {
namespace {

constexpr int kFraction = 22;

// What one output pixel is made of.
struct Window {
  std::size_t first = 0;
  std::vector<std::int32_t> weights;
};

double triangle(double x) {
  x = std::fabs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

double cubic(double x) {
  constexpr double kA = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * kA;
  return 0.0;
}

std::int32_t fixed(double weight) {
  return static_cast<std::int32_t>(weight * (1 << kFraction) + (weight < 0 ? -0.5 : 0.5));
}

std::vector<Window> windows(std::int64_t from, std::int64_t to, bool bicubic) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double stretch = std::max(scale, 1.0), shrink = 1.0 / stretch;
  const double support = (bicubic ? 2.0 : 1.0) * stretch;
  std::vector<Window> all(static_cast<std::size_t>(to));
  std::vector<double> exact;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    // Cut, not rounded: below 0 it makes no difference.  NOLINTBEGIN(bugprone-incorrect-roundings)
    const auto first = std::max(static_cast<std::int64_t>(centre - support + 0.5), std::int64_t{0});
    const auto last = std::min(static_cast<std::int64_t>(centre + support + 0.5), from);
    // NOLINTEND(bugprone-incorrect-roundings)
    exact.clear();
    double sum = 0.0;
    for (std::int64_t x = first; x < last; ++x) {
      const double place = (static_cast<double>(x) - centre + 0.5) * shrink;
      exact.push_back(bicubic ? cubic(place) : triangle(place));
      sum += exact.back();
    }
    all[i].first = static_cast<std::size_t>(first);
    for (const double weight : exact)
      all[i].weights.push_back(fixed(sum == 0 ? weight : weight / sum));
  }
  return all;
}

constexpr std::int32_t kHalf = 1 << (kFraction - 1);

std::uint8_t pixel_of(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kFraction, 0, 255));
}

// What a window of a row gives: into one byte of grey, or three of colour, which are read once.
void mix(const std::uint8_t* pixel, const Window& window, bool grey, std::uint8_t* into) {
  std::int32_t red = kHalf, green = kHalf, blue = kHalf;
  if (grey) {
    for (const std::int32_t weight : window.weights) red += *pixel++ * weight;
    *into = pixel_of(red);
    return;
  }
  for (const std::int32_t weight : window.weights) {
    red += pixel[0] * weight;
    green += pixel[1] * weight;
    blue += pixel[2] * weight;
    pixel += 3;
  }
  into[0] = pixel_of(red);
  into[1] = pixel_of(green);
  into[2] = pixel_of(blue);
}

Image rows(const Image& image, std::int64_t width, bool bicubic) {
  const auto channels = static_cast<std::size_t>(image.channels);
  const std::size_t stride = static_cast<std::size_t>(image.width) * channels;
  Image scaled{width, image.height, image.channels, {}};
  scaled.pixels.resize(static_cast<std::size_t>(width * image.height * image.channels));
  const std::vector<Window> each = windows(image.width, width, bicubic);
  std::uint8_t* into = scaled.pixels.data();
  for (std::size_t y = 0; y < static_cast<std::size_t>(image.height); ++y) {
    for (const Window& window : each) {
      mix(&image.pixels[y * stride + window.first * channels], window, channels == 1, into);
      into += channels;
    }
  }
  return scaled;
}

Image columns(const Image& image, std::int64_t height, bool bicubic) {
  const auto stride = static_cast<std::size_t>(image.width * image.channels);
  Image scaled{image.width, height, image.channels, {}};
  scaled.pixels.reserve(stride * static_cast<std::size_t>(height));
  std::vector<std::int32_t> sums(stride);
  for (const Window& window : windows(image.height, height, bicubic)) {
    // Row by row, as memory lies.
    const std::uint8_t* row = &image.pixels[window.first * stride];
    std::fill(sums.begin(), sums.end(), kHalf);
    for (const std::int32_t weight : window.weights) {
      for (std::size_t x = 0; x < stride; ++x) sums[x] += row[x] * weight;
      row += stride;
    }
    for (const std::int32_t sum : sums) scaled.pixels.push_back(pixel_of(sum));
  }
  return scaled;
}

}  // namespace

Image resample(const Image& image, std::int64_t width, std::int64_t height, bool bicubic) {
  const bool wide = width != image.width, high = height != image.height;
  if (!wide) return high ? columns(image, height, bicubic) : image;
  if (!high) return rows(image, width, bicubic);
  const std::int64_t lower = image.height - height, narrower = image.width - width;
  if (lower > 0 && lower > 2 * narrower)
    return rows(columns(image, height, bicubic), width, bicubic);
  return columns(rows(image, width, bicubic), height, bicubic);
}

}  // namespace convexport
