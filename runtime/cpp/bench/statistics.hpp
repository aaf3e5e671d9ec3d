// From samples to numbers with an interval; the methods, and the numbers, are those of the Python
// side's statistics, where they are derived.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace convexport::bench {

using Numbers = std::vector<double>;
using Interval = std::pair<double, double>;

// A percentile with its distribution-free 95 % interval; without a value below the floor.
struct Percentile {
  int percent = 0;
  std::size_t n = 0, floor = 0;
  std::optional<double> value, low, high;

  // Why there is no value, or nothing.
  std::string note() const;
};

// How many times faster one is than another, over fresh processes.
struct Ratio {
  double value = 0;
  std::optional<double> low, high;  // with two processes or more
  std::size_t processes = 0;
  std::string claim;  // faster, slower, no difference shown, or too few processes
};

double median(Numbers samples);
double mean(const Numbers& samples);
// Standard deviation (n - 1) / mean; none for fewer than two samples or a mean of 0.
std::optional<double> coefficient_of_variation(const Numbers& samples);
// 0 < percent < 100.
Percentile percentile(Numbers samples, int percent);
// The 95 % interval of the median when samples within a block depend on each other: whole blocks
// are drawn with replacement. None with fewer than two blocks or below the sample floor. A block
// has at most 65535 samples; the meter makes 20000.
std::optional<Interval> block_bootstrap(const std::vector<Numbers>& blocks, std::uint64_t seed);
// Entry i of both is one process; paired, on the log scale. Medians of calls are above 0.
Ratio ratio_of_medians(const Numbers& first, const Numbers& other);

}  // namespace convexport::bench
