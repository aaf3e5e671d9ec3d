// From an image to the tensor that the net was trained on: the Python side's pixels, bit for bit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "convexport/specs.hpp"

namespace convexport {

// 8-bit pixels, row by row; 1 channel is grey, 3 are red, green, blue.
struct Image {
  std::int64_t width = 0, height = 0, channels = 0;
  std::vector<std::uint8_t> pixels;
};

// Decode the bytes of a JPEG or PNG file to the channels that the spec asks for, turned as its
// EXIF orientation says; 16-bit grey is scaled, transparency and colour profiles are dropped.
// Throws InputError: E0312 to E0314, it is empty, no such image, cut or corrupt; E0309, too large.
Image decode(const std::string& file, const Preprocess& spec, const std::string& name = {});

// Resize, crop and normalise pixels, of a file or of a camera: 1xCxHxW.
// Throws UsageError E0201: they are not what they say to be; InputError E0309: the image is so
// narrow that resizing its shorter side makes it huge.
Tensor to_tensor(const Image& image, const Preprocess& spec, const std::string& name = {});

// Both, for a file. Throws InputError, also E0311: it cannot be read or is not a regular file.
Tensor preprocess(const std::filesystem::path& file, const Preprocess& spec);

}  // namespace convexport
