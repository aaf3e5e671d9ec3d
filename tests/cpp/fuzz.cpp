// Hostile manifests and images: only our own errors may come out. Clang's libFuzzer drives
// LLVMFuzzerTestOneInput; without it, main mutates seeds for some seconds:
//   fuzz SECONDS SEED-NUMBER FILE...
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

#include "convexport/bundle.hpp"
#include "convexport/errors.hpp"
#include "convexport/preprocess.hpp"

namespace {

constexpr std::size_t kLargestSide = 512;  // of what is decoded: time is for variety

convexport::Preprocess grey_spec() {
  convexport::Preprocess spec{};
  spec.crop = {4, 4};
  spec.resize = {5};
  spec.channels = "L";
  spec.mean = {0.5F};
  spec.std = {0.5F};
  return spec;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto spec = grey_spec();
  try {
    if (!bytes.empty() && bytes[0] == '{') {
      convexport::parse_manifest(bytes, "fuzz");
      return 0;
    }
    const auto image = convexport::decode(bytes, spec);
    if (image.pixels.size() > kLargestSide * kLargestSide) return 0;
    if (convexport::to_tensor(image, spec).values.size() != 16) std::abort();
  } catch (const convexport::Error& error) {
    if (error.code().size() != 5) std::abort();
  }
  return 0;
}

#ifndef CONVEXPORT_LIBFUZZER
namespace {

using Random = std::mt19937_64;

std::string mutated(std::string bytes, Random& random) {
  const auto below = [&random](std::size_t limit) { return random() % limit; };
  for (std::size_t left = 1 + below(4); left > 0 && !bytes.empty(); --left) {
    const std::size_t at = below(bytes.size());
    const std::size_t size = std::min(bytes.size() - at, 1 + below(16));
    switch (below(6)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(random());
        break;
      case 2:
        bytes.erase(at, size);
        break;
      case 3:
        bytes.insert(below(bytes.size()), bytes.substr(at, size));
        break;
      case 4:
        bytes.replace(at, size, size, below(2) ? '\xff' : '\0');
        break;
      default:
        bytes.resize(at + 1);
    }
  }
  return bytes;
}

}  // namespace

int main(int count, char** arguments) {
  std::vector<std::string> seeds;
  for (int i = 3; i < count; ++i) {
    std::ifstream file(arguments[i], std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(std::atof(arguments[1]));
  Random random(std::strtoull(arguments[2], nullptr, 10));
  std::size_t tried = 0;
  for (; std::chrono::steady_clock::now() < end; ++tried) {
    const std::string input = mutated(seeds[random() % seeds.size()], random);
    // The last one tried lies there if the sanitizers end the program.
    std::ofstream("last-input", std::ios::binary) << input;
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  }
  std::printf("%zu\n", tried);
}
#endif
