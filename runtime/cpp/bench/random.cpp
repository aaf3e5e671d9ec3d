#include "random.hpp"

namespace convexport::bench {
namespace {

// One step of SeedSequence's hash: the constant goes on with every word.
std::uint32_t hashed(std::uint32_t word, std::uint32_t& constant, std::uint32_t factor) {
  word ^= constant;
  constant *= factor;
  word *= constant;
  return word ^ word >> 16;
}

std::uint32_t mixed(std::uint32_t one, std::uint32_t other) {
  const std::uint32_t both = 0xca01f9ddU * one - 0x4973f715U * other;
  return both ^ both >> 16;
}

// The eight words of 32 bits that SeedSequence(seed) makes.
std::array<std::uint32_t, 8> spread(std::uint64_t seed) {
  std::array<std::uint32_t, 4> pool = {static_cast<std::uint32_t>(seed),
                                       static_cast<std::uint32_t>(seed >> 32), 0, 0};
  std::uint32_t constant = 0x43b0d7e5U;
  for (std::uint32_t& word : pool) word = hashed(word, constant, 0x931e8875U);
  for (std::size_t from = 0; from < pool.size(); ++from) {
    for (std::size_t to = 0; to < pool.size(); ++to) {
      if (to != from) pool[to] = mixed(pool[to], hashed(pool[from], constant, 0x931e8875U));
    }
  }
  std::array<std::uint32_t, 8> words{};
  constant = 0x8b51f9ddU;
  for (std::size_t i = 0; i < words.size(); ++i) {
    words[i] = hashed(pool[i % pool.size()], constant, 0x58f38dedU);
  }
  return words;
}

}  // namespace

NumpyRandom::NumpyRandom(std::uint64_t seed) {
  const auto words = spread(seed);
  const auto wide = [&words](std::size_t at) {  // the high half first, each half's low word first
    return static_cast<Wide>(words[at + 1]) << 96 | static_cast<Wide>(words[at]) << 64 |
           static_cast<Wide>(words[at + 3]) << 32 | words[at + 2];
  };
  increment_ = wide(4) << 1 | 1;
  next();
  state_ += wide(0);
  next();
}

std::uint64_t NumpyRandom::next() {
  const Wide multiplier = static_cast<Wide>(0x2360ed051fc65da4ULL) << 64 | 0x4385df649fccf645ULL;
  state_ = state_ * multiplier + increment_;
  const auto folded = static_cast<std::uint64_t>(state_ >> 64 ^ state_);
  const auto turn = static_cast<unsigned>(state_ >> 122);
  return folded >> turn | folded << (-turn & 63);
}

std::uint32_t NumpyRandom::next_half() {
  has_half_ = !has_half_;
  if (!has_half_) return half_;
  const std::uint64_t both = next();
  half_ = static_cast<std::uint32_t>(both >> 32);
  return static_cast<std::uint32_t>(both);
}

std::uint32_t NumpyRandom::below(std::uint32_t count) {
  const std::uint32_t threshold = -count % count;
  std::uint64_t product = 0;
  do {
    product = static_cast<std::uint64_t>(next_half()) * count;
  } while (static_cast<std::uint32_t>(product) < threshold);
  return static_cast<std::uint32_t>(product >> 32);
}

}  // namespace convexport::bench
