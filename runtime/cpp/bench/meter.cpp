#include "meter.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>

#include "statistics.hpp"

namespace convexport::bench {
namespace {

using Call = std::function<void()>;

constexpr double kSettled = 0.02;
constexpr int kMaxWindows = 10;
constexpr std::size_t kWindowCalls = 3, kBlockSamples = 20'000, kFloorCalls = 10'000;
constexpr double kBlockS = 0.2;
constexpr double kSecond = 1e9;

std::int64_t now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

std::int64_t timed(const Call& call) {
  const std::int64_t start = now();
  call();
  return now() - start;
}

// A second; less when the run itself takes less than two.
double window_s(const Options& options) { return std::min(1.0, options.duration_s / 2); }

double window(const Call& call, double seconds) {
  std::vector<double> samples;
  const std::int64_t deadline = now() + static_cast<std::int64_t>(seconds * kSecond);
  for (std::size_t made = 0; now() < deadline || made < kWindowCalls; ++made) {
    const auto taken = static_cast<double>(timed(call));
    if (samples.size() < kBlockSamples) {
      samples.push_back(taken);
    } else {
      samples[made % kBlockSamples] = taken;  // the last ones count
    }
  }
  return median(std::move(samples));
}

// Windows until two in a row agree, and the median of the last in ns.
std::pair<Warmup, std::int64_t> warm_up(const Call& call, const Options& options) {
  Warmup warmup{0, 0, window_s(options), false};
  const std::int64_t begin = now();
  double last = 0;
  const auto soon = [&] { return static_cast<double>(now() - begin) / kSecond < options.warmup_s; };
  while (warmup.windows < kMaxWindows || soon()) {
    const double before = last;
    last = window(call, warmup.window_s);
    ++warmup.windows;
    warmup.seconds = static_cast<double>(now() - begin) / kSecond;
    warmup.settled = warmup.windows > 1 && std::fabs(last - before) < kSettled * before;
    if (warmup.settled && warmup.seconds >= options.warmup_s) break;
  }
  return {warmup, static_cast<std::int64_t>(last)};
}

// The samples of span ns, at least one and at most kBlockSamples; when they began.
std::int64_t block(const Call& call, std::int64_t span, Samples& samples) {
  const std::int64_t warm = now() + span / 10;
  do {
    call();
  } while (now() < warm);
  const std::size_t had = samples.ns.size();
  const std::int64_t begin = now();
  std::int64_t stop = begin;
  while (stop < begin + span && samples.ns.size() - had < kBlockSamples) {
    const std::int64_t start = now();
    call();
    stop = now();
    samples.ns.push_back(stop - start);
  }
  samples.block_sizes.push_back(static_cast<std::int64_t>(samples.ns.size() - had));
  return begin;
}

}  // namespace

void to_json(Json& data, const Options& options) {
  data = {{"duration_s", options.duration_s}, {"processes", options.processes},
          {"batch", options.batch},           {"threads", options.threads},
          {"warmup_s", options.warmup_s},     {"seed", options.seed},
          {"timeout_s", options.timeout_s}};
}

void from_json(const Json& data, Options& options) {
  data.at("duration_s").get_to(options.duration_s);
  data.at("processes").get_to(options.processes);
  data.at("batch").get_to(options.batch);
  data.at("threads").get_to(options.threads);
  data.at("warmup_s").get_to(options.warmup_s);
  data.at("seed").get_to(options.seed);
  data.at("timeout_s").get_to(options.timeout_s);
}

std::map<std::string, Samples> measure(const Calls& calls, const Options& options) {
  std::map<std::string, Samples> all;
  std::vector<std::string> order;
  for (const auto& [label, call] : calls) {
    all[label].first_ns = timed(call);
    order.push_back(label);
  }
  auto span = static_cast<std::int64_t>(std::min(kBlockS, options.duration_s / 10) * kSecond);
  for (const auto& [label, call] : calls) {
    const auto [warmup, median_ns] = warm_up(call, options);
    all[label].warmup = warmup;
    span = std::max(span, median_ns);
  }
  const double rounds = std::ceil(options.duration_s * kSecond / static_cast<double>(2 * span));
  std::mt19937_64 random(static_cast<std::uint64_t>(options.seed));
  const std::int64_t begin = now();
  for (int round = 0; round < static_cast<int>(rounds); ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (int way = 0; way < 2; ++way) {
      for (const std::string& label : order) {
        Samples& samples = all[label];
        samples.block_starts_ns.push_back(block(calls.at(label), span, samples) - begin);
      }
      std::reverse(order.begin(), order.end());
    }
  }
  return all;
}

double overhead_ns() {
  const Call nothing = [] {};
  std::vector<double> samples(kFloorCalls);
  for (double& sample : samples) sample = static_cast<double>(timed(nothing));
  return median(std::move(samples));
}

double planned_s(const Options& options) {
  return options.warmup_s + kMaxWindows * window_s(options) + 1.3 * options.duration_s;
}

}  // namespace convexport::bench
