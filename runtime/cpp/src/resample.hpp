// Scaling images as Pillow does.
#pragma once

#include "convexport/preprocess.hpp"

namespace convexport {

// Antialiased, in two passes over 8-bit pixels: bilinear, or bicubic with a = -0.5.
Image resample(const Image& image, std::int64_t width, std::int64_t height, bool bicubic);

}  // namespace convexport
