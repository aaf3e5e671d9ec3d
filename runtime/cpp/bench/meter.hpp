// How long calls take inside one process, measured as the Python side does it: each is made once,
// then warmed up until two windows agree, then measured in blocks of equal time. A round visits the
// calls in a random order and back again, so that a drift of the machine falls on all alike, and
// every block begins with a tenth of its time unmeasured.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "samples.hpp"

namespace convexport::bench {

constexpr double kWarmupS = 0.5;

struct Options {
  double duration_s = 10;  // how long each model is measured, over all processes together
  int processes = 5;
  std::int64_t batch = 1;
  int threads = 1;
  double warmup_s = kWarmupS;  // the shortest, of each model in each process
  std::int64_t seed = 0;       // of the noise and of the order
  double timeout_s = 300;      // how much longer than planned a process may take
};

void to_json(Json& data, const Options& options);
void from_json(const Json& data, Options& options);

using Calls = std::map<std::string, std::function<void()>>;

// Measure calls side by side for duration_s each.
std::map<std::string, Samples> measure(const Calls& calls, const Options& options);

// What the meter reads for a call that does nothing.
double overhead_ns();

// An upper bound of the time that measure needs for one fast call.
double planned_s(const Options& options);

}  // namespace convexport::bench
