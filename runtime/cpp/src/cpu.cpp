#include "cpu.hpp"

#include <fstream>

namespace convexport {
namespace {

// The flags of the first x86 CPU that Linux names, each between spaces; "" on others.
std::string cpu_flags() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const std::size_t colon = line.find(':');
    if (line.compare(0, 5, "flags") == 0 && colon != std::string::npos) {
      return line.substr(colon + 1) + " ";
    }
  }
  return {};
}

bool has(const std::string& flags, const std::string& flag) {
  return flags.find(" " + flag + " ") != std::string::npos;
}

}  // namespace

bool overflows() {
  const std::string flags = cpu_flags();
  return !flags.empty() && !has(flags, "avx512_vnni") && !has(flags, "avx_vnni");
}

std::string integer_kernels() {
  if (cpu_flags().empty()) return "no x86 units that are known";
  return overflows() ? "x86 without VNNI" : "x86 with VNNI";
}

}  // namespace convexport
