// The numbers that numpy.random.default_rng(seed).integers gives: PCG64 (O'Neill 2014), its seed
// spread by numpy's SeedSequence, cut to a range by Lemire's method (2019). With them a bootstrap
// draws the blocks that the Python side draws.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace convexport::bench {

class NumpyRandom {
 public:
  explicit NumpyRandom(std::uint64_t seed);

  // Evenly one of 0 to count - 1; count >= 2.
  std::uint32_t below(std::uint32_t count);

 private:
  __extension__ using Wide = unsigned __int128;

  std::uint64_t next();
  std::uint32_t next_half();

  Wide state_ = 0, increment_ = 0;
  bool has_half_ = false;
  std::uint32_t half_ = 0;
};

}  // namespace convexport::bench
