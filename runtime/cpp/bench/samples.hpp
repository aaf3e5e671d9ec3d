// Raw latencies of one call in one process, as the Python side records them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "json.hpp"

namespace convexport::bench {

constexpr const char* kEncoding = "base64(zlib(little-endian int64)), nanoseconds";

using Nanoseconds = std::vector<std::int64_t>;

struct Warmup {
  double seconds = 0;
  int windows = 0;
  double window_s = 0;   // shorter than a second when the run is short
  bool settled = false;  // the medians of the last two windows differ by less than 2 %
};

struct Samples {
  Nanoseconds ns;               // each call, in the order in which they were made
  Nanoseconds block_sizes;      // how they divide into uninterrupted blocks
  Nanoseconds block_starts_ns;  // since the first block of any call began
  std::int64_t first_ns = 0;    // the very first call, before the warm-up
  Warmup warmup;
};

// One model in one process.
struct ModelRun {
  double load_ms = 0;
  std::string runtime, provider;
  Samples samples;
};

void to_json(Json& data, const Warmup& warmup);
void from_json(const Json& data, Warmup& warmup);
// Arrays of numbers: for the way from a process to another.
void to_json(Json& data, const ModelRun& run);
void from_json(const Json& data, ModelRun& run);
// For a recording: the arrays as kEncoding says.
Json recorded(const ModelRun& run);

}  // namespace convexport::bench
