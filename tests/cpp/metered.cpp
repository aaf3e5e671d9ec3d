// What the tests call of the benchmark: its meter and its statistics, with answers in JSON.
//   metered sleep SECONDS MICROSECONDS   a call that sleeps, measured for that long
//   metered numbers SEED                 of {"blocks": [[...]], "other": [...]} on stdin
//   metered bench BUNDLE OPTIONS         what convexport-bench --json says, or the error
#include <convexport/errors.hpp>

#include <chrono>
#include <iostream>
#include <thread>

#include "child.hpp"
#include "latency.hpp"
#include "meter.hpp"
#include "statistics.hpp"

namespace {

using convexport::Json;
using namespace convexport::bench;

Json number(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

Json slept(double seconds, int microseconds) {
  Options options;
  options.duration_s = seconds;
  options.warmup_s = 0.1;
  const auto nap = [microseconds] {
    std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
  };
  const auto samples = measure({{"nap", nap}, {"double", [nap] { (nap(), nap()); }}}, options);
  Json all = {{"floor_ns", overhead_ns()}};
  for (const auto& [label, each] : samples) all[label] = recorded({0, "", "", each});
  return all;
}

Json numbers(const Json& given, std::uint64_t seed) {
  const auto blocks = given.at("blocks").get<std::vector<Numbers>>();
  const auto other = given.at("other").get<Numbers>();
  Numbers samples;
  for (const Numbers& block : blocks) samples.insert(samples.end(), block.begin(), block.end());
  Json all = {{"mean", mean(samples)},
              {"median", median(samples)},
              {"cv", number(coefficient_of_variation(samples))}};
  for (const int percent : {50, 90, 95, 99}) {
    const Percentile each = percentile(samples, percent);
    all["percentiles"].push_back(
        {each.floor, number(each.value), number(each.low), number(each.high)});
  }
  const auto bootstrap = block_bootstrap(blocks, seed);
  all["bootstrap"] = bootstrap ? Json::array({bootstrap->first, bootstrap->second}) : Json();
  samples.resize(other.size());
  const Ratio ratio = ratio_of_medians(samples, other);
  all["ratio"] = {ratio.value, number(ratio.low), number(ratio.high), ratio.claim};
  return all;
}

Json measured(const std::string& bundle, const std::string& options) {
  try {
    return measure_bundle(bundle, Json::parse(options).get<Options>(), [](const std::string&) {});
  } catch (const convexport::Error& error) {
    return error.what();
  }
}

}  // namespace

int main(int, char** arguments) {
  const std::string door = arguments[1];
  if (door == "--worker") return answer(work, arguments[2]);
  if (door == "bench") std::cout << measured(arguments[2], arguments[3]);
  if (door == "sleep") std::cout << slept(std::stod(arguments[2]), std::stoi(arguments[3]));
  if (door == "numbers") std::cout << numbers(Json::parse(std::cin), std::stoull(arguments[2]));
}
