// Image files that nobody vouches for: which are read, and what is said of the others.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "convexport/errors.hpp"
#include "convexport/preprocess.hpp"

namespace convexport {

constexpr std::int64_t kLargestImage = 89'478'485;  // pixels, as on the Python side

// What stands before the pixels.
struct ImageHeader {
  std::int64_t width = 0, height = 0;
  std::optional<std::string> exif;  // as it lies in the file
  std::optional<std::string>
      profile;      // ImageMagick's text of EXIF data, looked at where exif is not
  std::string xmp;  // "" where there is none
};

// The bytes of a regular file of at most 1 GiB; nothing else is opened.
// Throws InputError: E0311, it cannot be read or is not a regular file; E0309, it is too large.
std::string read_image_file(const std::filesystem::path& path);

bool is_jpeg(const std::string& file);
bool is_png(const std::string& file);

// What a header says. Throws InputError: E0313 or E0314, as Pillow calls such a file unknown or
// broken.
ImageHeader jpeg_header(const std::string& file, const std::string& name);
ImageHeader png_header(const std::string& file, const std::string& name);

// The pixels, as grey or RGB, unturned. Throws InputError E0314: they are cut or corrupt.
Image jpeg_pixels(const std::string& file, const ImageHeader& header, const std::string& name);
Image png_pixels(const std::string& file, const ImageHeader& header, const std::string& name);

// The orientation of EXIF or else XMP data: 1 where they give none.
int orientation(const ImageHeader& header);

InputError not_an_image(const std::string& file, const std::string& name);
InputError broken_image(const std::string& why, const std::string& name);

}  // namespace convexport
