#include "convexport/preprocess.hpp"

#include <cmath>
#include <optional>

#include "convexport/errors.hpp"
#include "image_files.hpp"
#include "resample.hpp"

namespace convexport {
namespace {

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

// The image as its EXIF orientation says that it stands.
Image turned(Image image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const bool transposed = orientation >= 5;
  const bool from_right =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image result{image.width, image.height, image.channels, {}};
  if (transposed) std::swap(result.width, result.height);
  result.pixels.reserve(image.pixels.size());
  for (std::int64_t y = 0; y < result.height; ++y) {
    for (std::int64_t x = 0; x < result.width; ++x) {
      std::int64_t column = transposed ? y : x, row = transposed ? x : y;
      if (from_right) column = image.width - 1 - column;
      if (from_below) row = image.height - 1 - row;
      const auto* pixel = &image.pixels[size((row * image.width + column) * image.channels)];
      result.pixels.insert(result.pixels.end(), pixel, pixel + image.channels);
    }
  }
  return result;
}

// ITU-R 601, rounded, as Pillow weighs the colours.
std::uint8_t grey(const std::uint8_t* rgb) {
  return static_cast<std::uint8_t>((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >>
                                   16);
}

Image with_channels(const Image& image, std::int64_t channels) {
  Image result{image.width, image.height, channels, {}};
  result.pixels.reserve(size(image.width * image.height * channels));
  for (std::size_t i = 0; i < image.pixels.size(); i += size(image.channels)) {
    if (channels == 1) {
      result.pixels.push_back(grey(&image.pixels[i]));
    } else {
      result.pixels.insert(result.pixels.end(), 3, image.pixels[i]);
    }
  }
  return result;
}

InputError too_narrow(const Image& image, double width, double height, const std::string& name) {
  const auto shape = [](double w, double h) {
    return std::to_string(static_cast<std::int64_t>(w)) + "x" +
           std::to_string(static_cast<std::int64_t>(h));
  };
  return InputError("E0309",
                    "too narrow: " + std::to_string(image.width) + "x" +
                        std::to_string(image.height) + " would be resized to " +
                        shape(width, height),
                    name, "", "leave this image out");
}

Image resized(const Image& image, const Preprocess& spec, const std::string& name) {
  const auto side = static_cast<double>(spec.resize[0]);
  const auto wide = static_cast<double>(image.width), high = static_cast<double>(image.height);
  double width = side, height = side;
  if (spec.resize.size() == 2) {
    width = static_cast<double>(spec.resize[1]);
  } else if (image.width <= image.height) {
    height = std::trunc(side * high / wide);
  } else {
    width = std::trunc(side * wide / high);
  }
  if (width * height > static_cast<double>(kLargestImage)) {
    throw too_narrow(image, width, height, name);
  }
  return resample(image, static_cast<std::int64_t>(width), static_cast<std::int64_t>(height),
                  spec.bicubic);
}

// Where a centred crop begins, halves rounded to even; below 0 where it is longer than the image.
std::int64_t central(std::int64_t length, std::int64_t crop) {
  if (crop > length) return -((crop - length) / 2);
  const std::int64_t half = (length - crop) / 2;
  return (length - crop) % 2 != 0 && half % 2 != 0 ? half + 1 : half;
}

void require_image(const Image& image, const std::string& name) {
  const bool sane = image.width > 0 && image.height > 0 &&
                    (image.channels == 1 || image.channels == 3) &&
                    image.width <= kLargestImage / image.height;
  if (!sane || image.pixels.size() != size(image.width * image.height * image.channels)) {
    throw UsageError("E0201", "the pixels are not those of an image of 1 or 3 channels", name);
  }
}

}  // namespace

Image decode(const std::string& file, const Preprocess& spec, const std::string& name) {
  if (file.empty()) throw InputError("E0312", "the image file is empty", name);
  const bool jpeg = is_jpeg(file);
  if (!jpeg && !is_png(file)) throw not_an_image(file, name);
  const ImageHeader header = jpeg ? jpeg_header(file, name) : png_header(file, name);
  if (header.width > kLargestImage / header.height) {
    throw InputError("E0309",
                     "the image is too large: " + std::to_string(header.width) + "x" +
                         std::to_string(header.height) + " pixels",
                     name, "", "at most 89478485 pixels: scale it down first");
  }
  Image image = jpeg ? jpeg_pixels(file, header, name) : png_pixels(file, header, name);
  if (spec.exif) image = turned(std::move(image), orientation(header));
  const std::int64_t channels = spec.shape()[0];
  return image.channels == channels ? std::move(image) : with_channels(image, channels);
}

Tensor to_tensor(const Image& given, const Preprocess& spec, const std::string& name) {
  require_image(given, name);
  const auto [channels, height, width] = spec.shape();
  std::optional<Image> other;
  if (given.channels != channels) other = with_channels(given, channels);
  const Image image = resized(other ? *other : given, spec, name);
  const std::int64_t top = central(image.height, height), left = central(image.width, width);
  Tensor tensor{{1, channels, height, width}, {}};
  tensor.values.reserve(count(tensor.shape));
  for (std::int64_t c = 0; c < channels; ++c) {
    const std::int64_t from = spec.channels == "BGR" ? channels - 1 - c : c;
    const float mean = spec.mean[size(c)], std = spec.std[size(c)];
    for (std::int64_t y = top; y < top + height; ++y) {
      for (std::int64_t x = left; x < left + width; ++x) {
        const bool outside = x < 0 || y < 0 || x >= image.width || y >= image.height;
        const std::size_t place = size((y * image.width + x) * channels + from);
        const float value = outside ? 0.0F : static_cast<float>(image.pixels[place]);
        tensor.values.push_back((value / 255.0F - mean) / std);
      }
    }
  }
  return tensor;
}

Tensor preprocess(const std::filesystem::path& file, const Preprocess& spec) {
  const std::string name = file.string();
  return to_tensor(decode(read_image_file(file), spec, name), spec, name);
}

}  // namespace convexport
