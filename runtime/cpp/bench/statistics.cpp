#include "statistics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "random.hpp"

namespace convexport::bench {
namespace {

constexpr double kTail = (1 - 0.95) / 2;
constexpr std::size_t kClaimProcesses = 5, kGrid = 4096, kResamples = 1000;

// The fewest samples for which the percentile has an interval with both ends finite.
std::size_t sample_floor(int percent) {
  const double larger = std::max(percent, 100 - percent) / 100.0;
  return static_cast<std::size_t>(std::ceil(std::log(kTail) / std::log(larger)));
}

// The rank of a percentile among n, from 1.
std::size_t rank(std::size_t n, int percent) {
  return (n * static_cast<std::size_t>(percent) + 99) / 100;
}

// P(B <= k) for k = 0..n, where B ~ Binomial(n, p), from the ratios of neighbours.
Numbers binomial_cdf(std::size_t n, double p) {
  Numbers mass(n + 1);
  for (std::size_t k = 1; k <= n; ++k) {
    const auto left = static_cast<double>(n - k + 1), taken = static_cast<double>(k);
    mass[k] = mass[k - 1] + (std::log(left / taken) + std::log(p / (1 - p)));
  }
  const double largest = *std::max_element(mass.begin(), mass.end());
  for (double& each : mass) each = std::exp(each - largest);
  const double sum = std::accumulate(mass.begin(), mass.end(), 0.0);
  std::partial_sum(mass.begin(), mass.end(), mass.begin());
  for (double& each : mass) each = std::min(each / sum, 1.0);
  return mass;
}

// P(T <= t) for Student's t: a finite sum for whole degrees of freedom.
double student_t_cdf(double t, std::size_t df) {
  const double pi = std::acos(-1.0), theta = std::atan2(t, std::sqrt(static_cast<double>(df)));
  const double sine = std::sin(theta), cosine = std::cos(theta);
  double total = 1, term = 1;
  for (std::size_t j = 2 + df % 2; j + 1 < df; j += 2) {
    term *= cosine * cosine * static_cast<double>(j - 1) / static_cast<double>(j);
    total += term;
  }
  if (df == 1) return 0.5 + theta / pi;
  return 0.5 + (df % 2 ? (theta + sine * cosine * total) / pi : sine * total / 2);
}

double student_t_quantile(double probability, std::size_t df) {
  double low = 0, high = 1;
  while (student_t_cdf(high, df) < probability) high *= 2;
  while (high - low > 1e-12 * high) {
    const double middle = (low + high) / 2;
    (student_t_cdf(middle, df) < probability ? low : high) = middle;
  }
  return high;
}

// Between two order statistics, linearly.
double quantile(const Numbers& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const double above = sorted[std::min(below + 1, sorted.size() - 1)];
  return sorted[below] + (above - sorted[below]) * (at - static_cast<double>(below));
}

// The different values; above kGrid of them, kGrid evenly spaced order statistics.
Numbers grid_of(const Numbers& sorted) {
  Numbers grid(sorted);
  grid.erase(std::unique(grid.begin(), grid.end()), grid.end());
  if (grid.size() <= kGrid) return grid;
  grid.clear();
  const double step = static_cast<double>(sorted.size() - 1) / static_cast<double>(kGrid - 1);
  for (std::size_t i = 0; i + 1 < kGrid; ++i) {
    grid.push_back(sorted[static_cast<std::size_t>(static_cast<double>(i) * step)]);
  }
  grid.push_back(sorted.back());
  grid.erase(std::unique(grid.begin(), grid.end()), grid.end());
  return grid;
}

std::string claim(double low, double high, std::size_t processes) {
  if (processes < kClaimProcesses) return "too few processes";
  return low > 1 ? "faster" : high < 1 ? "slower" : "no difference shown";
}

}  // namespace

std::string Percentile::note() const {
  if (value) return {};
  return "n too small: " + std::to_string(n) + " of " + std::to_string(floor);
}

double median(Numbers samples) {
  std::sort(samples.begin(), samples.end());
  const std::size_t half = samples.size() / 2;
  return samples.size() % 2 ? samples[half] : (samples[half - 1] + samples[half]) / 2;
}

double mean(const Numbers& samples) {
  return std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size());
}

std::optional<double> coefficient_of_variation(const Numbers& samples) {
  if (samples.size() < 2) return std::nullopt;
  const double centre = mean(samples);
  if (centre == 0) return std::nullopt;
  double squares = 0;
  for (const double sample : samples) squares += (sample - centre) * (sample - centre);
  return std::sqrt(squares / static_cast<double>(samples.size() - 1)) / std::fabs(centre);
}

Percentile percentile(Numbers samples, int percent) {
  const std::size_t n = samples.size();
  Percentile result{percent, n, sample_floor(percent), {}, {}, {}};
  if (n < result.floor) return result;
  std::sort(samples.begin(), samples.end());
  const Numbers cdf = binomial_cdf(n, percent / 100.0);
  // The tightest ranks that leave at most 2.5 % on either side, counted from 1.
  const auto low = std::upper_bound(cdf.begin(), cdf.end(), kTail) - cdf.begin();
  const auto high = std::lower_bound(cdf.begin(), cdf.end(), 1 - kTail) - cdf.begin() + 1;
  result.value = samples[rank(n, percent) - 1];
  result.low = samples[static_cast<std::size_t>(low) - 1];
  result.high = samples[static_cast<std::size_t>(high) - 1];
  return result;
}

std::optional<Interval> block_bootstrap(const std::vector<Numbers>& blocks, std::uint64_t seed) {
  Numbers all;
  for (const Numbers& block : blocks) all.insert(all.end(), block.begin(), block.end());
  std::sort(all.begin(), all.end());
  if (blocks.size() < 2 || all.size() < sample_floor(50)) return std::nullopt;
  const Numbers grid = grid_of(all);
  // For each block how many samples are at most each value of the grid: two bytes, for there are
  // many blocks.
  std::vector<std::vector<std::uint16_t>> below;
  for (Numbers block : blocks) {
    std::sort(block.begin(), block.end());
    auto& counts = below.emplace_back();
    counts.reserve(grid.size());
    std::uint16_t passed = 0;
    for (const double value : grid) {
      while (passed < block.size() && block[passed] <= value) ++passed;
      counts.push_back(passed);
    }
  }
  NumpyRandom random(seed);
  Numbers values(kResamples);
  for (double& value : values) {
    std::vector<std::size_t> sums(grid.size());
    for (std::size_t drawn = 0; drawn < blocks.size(); ++drawn) {
      const auto& counts = below[random.below(static_cast<std::uint32_t>(blocks.size()))];
      std::transform(counts.begin(), counts.end(), sums.begin(), sums.begin(), std::plus<>());
    }
    // The last of the grid is the largest sample: what is below it is all that was drawn.
    const auto wanted = std::lower_bound(sums.begin(), sums.end(), rank(sums.back(), 50));
    value = grid[static_cast<std::size_t>(wanted - sums.begin())];
  }
  std::sort(values.begin(), values.end());
  return Interval{quantile(values, kTail), quantile(values, 1 - kTail)};
}

Ratio ratio_of_medians(const Numbers& first, const Numbers& other) {
  const std::size_t n = first.size();
  Numbers logs(n);
  for (std::size_t i = 0; i < n; ++i) logs[i] = std::log(first[i]) - std::log(other[i]);
  const double centre = mean(logs);
  if (n == 1) return {std::exp(centre), {}, {}, 1, "too few processes"};
  double squares = 0;
  for (const double log : logs) squares += (log - centre) * (log - centre);
  const double deviation = std::sqrt(squares / static_cast<double>(n - 1));
  const double half =
      student_t_quantile(1 - kTail, n - 1) * deviation / std::sqrt(static_cast<double>(n));
  const double low = std::exp(centre - half), high = std::exp(centre + half);
  return {std::exp(centre), low, high, n, claim(low, high, n)};
}

}  // namespace convexport::bench
