// numpy's .npy files, as far as a golden sample needs them.
#pragma once

#include <filesystem>

#include "convexport/specs.hpp"

namespace convexport {

// A little-endian float32 array in C order. Throws std::runtime_error: the file is none such.
Tensor read_npy(const std::filesystem::path& path);

}  // namespace convexport
