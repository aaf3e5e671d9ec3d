// What this machine's CPU can do, as far as INT8 depends on it.
#pragma once

#include <string>

namespace convexport {

// What the products of integers run on, in the words of a manifest's "checked_on".
std::string integer_kernels();

// Whether sums of two products of U8 and S8 overflow 16 bits: so it is on x86 without VNNI.
bool overflows();

}  // namespace convexport
