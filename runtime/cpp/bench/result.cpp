#include "result.hpp"

#include <algorithm>
#include <cstdio>

#include "statistics.hpp"

namespace convexport::bench {
namespace {

constexpr int kPercents[] = {50, 90, 95, 99};
constexpr double kCvLimit = 0.05, kOthersLimit = 0.05, kStealLimit = 0.01, kDurationS = 10;
constexpr double kMs = 1e6;

// One model's numbers, as far as a verdict asks for them.
struct Row {
  std::string label;
  std::optional<double> cv, cv_processes;
  std::vector<Percentile> percentiles;
};

Json json(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

std::string formatted(const char* format, double value) {
  char text[64];
  (void)std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string share(double value) { return formatted("%.1f%%", 100 * value); }

Numbers in_ms(const Nanoseconds& ns) {
  Numbers ms;
  for (const std::int64_t value : ns) ms.push_back(static_cast<double>(value) / kMs);
  return ms;
}

std::vector<const ModelRun*> runs_of(const std::string& label, const Recording& recording) {
  std::vector<const ModelRun*> runs;
  runs.reserve(recording.runs.size());
  for (const Run& run : recording.runs) runs.push_back(&run.models.at(label));
  return runs;
}

Numbers medians(const std::vector<const ModelRun*>& runs) {
  Numbers all;
  for (const ModelRun* run : runs) all.push_back(median(in_ms(run->samples.ns)));
  return all;
}

template <typename Value>
double median_of(const std::vector<const ModelRun*>& runs, Value value) {
  Numbers all;
  for (const ModelRun* run : runs) all.push_back(value(*run));
  return median(all);
}

std::vector<Numbers> blocks_of(const std::vector<const ModelRun*>& runs) {
  std::vector<Numbers> blocks;
  for (const ModelRun* run : runs) {
    const Numbers ms = in_ms(run->samples.ns);
    auto at = ms.begin();
    for (const std::int64_t size : run->samples.block_sizes) {
      blocks.emplace_back(at, at + size);
      at += size;
    }
  }
  return blocks;
}

Json json(const Percentile& value) {
  return {{"percent", value.percent},   {"n", value.n},           {"floor", value.floor},
          {"value", json(value.value)}, {"low", json(value.low)}, {"high", json(value.high)},
          {"note", value.note()}};
}

Json json(const Ratio& ratio) {
  return {
      {"value", ratio.value},     {"low", json(ratio.low)},
      {"high", json(ratio.high)}, {"processes", ratio.processes},
      {"claim", ratio.claim},     {"method", "paired t interval on log ratios of process medians"}};
}

// With all samples of all processes, in ms.
std::pair<Row, Numbers> spread_of(const std::string& label,
                                  const std::vector<const ModelRun*>& runs) {
  Numbers all;
  Row row{label, {}, {}, {}};
  for (const ModelRun* run : runs) {
    const Numbers ms = in_ms(run->samples.ns);
    all.insert(all.end(), ms.begin(), ms.end());
    const auto cv = coefficient_of_variation(ms);
    if (cv) row.cv = std::max(row.cv.value_or(*cv), *cv);
  }
  row.cv_processes = coefficient_of_variation(medians(runs));
  for (const int percent : kPercents) row.percentiles.push_back(percentile(all, percent));
  return {std::move(row), std::move(all)};
}

std::pair<Row, Json> row_of(const Subject& subject, const Recording& recording) {
  const auto runs = runs_of(subject.label, recording);
  auto [row, all] = spread_of(subject.label, runs);
  const Numbers mine = medians(runs);
  Json percentiles = Json::object();
  for (const Percentile& each : row.percentiles) {
    percentiles["p" + std::to_string(each.percent)] = json(each);
  }
  const auto p50 = row.percentiles[0].value;
  const auto seed = static_cast<std::uint64_t>(recording.options.seed);
  const auto bootstrap = block_bootstrap(blocks_of(runs), seed);
  const bool first = subject.label == recording.subjects[0].label;
  const Numbers baseline = medians(runs_of(recording.subjects[0].label, recording));
  const Json& memory = recording.memory.at(subject.label);
  const auto images = static_cast<double>(recording.options.batch);
  const auto load_ms = [](const ModelRun& run) { return run.load_ms; };
  const auto first_ms = [](const ModelRun& run) {
    return static_cast<double>(run.samples.first_ns) / kMs;
  };
  return {row,
          {{"label", subject.label},
           {"sha256", subject.sha256},
           {"runtime", runs[0]->runtime},
           {"provider", runs[0]->provider},
           {"n", all.size()},
           {"percentiles_ms", percentiles},
           {"median_bootstrap_ms",
            bootstrap ? Json::array({bootstrap->first, bootstrap->second}) : Json()},
           {"process_medians_ms", mine},
           {"mean_ms", mean(all)},
           {"cv", json(row.cv)},
           {"cv_processes", json(row.cv_processes)},
           {"throughput", p50 ? Json(images / *p50 * 1e3) : Json()},
           {"load_ms", median_of(runs, load_ms)},
           {"first_inference_ms", median_of(runs, first_ms)},
           {"peak_rss_bytes", memory.at("peak")},
           {"baseline_rss_bytes", memory.at("baseline")},
           {"speedup", first ? Json() : json(ratio_of_medians(baseline, mine))}}};
}

// Why another run may well give other numbers.
std::vector<std::string> reasons(const Recording& recording, const std::vector<Row>& rows) {
  std::vector<std::string> all;
  const Options& options = recording.options;
  if (options.duration_s < kDurationS) {
    all.push_back("measured for " + formatted("%g s", options.duration_s) + ", less than 10 s");
  }
  if (options.warmup_s < kWarmupS) {
    all.push_back("warm-up of " + formatted("%g s", options.warmup_s) + ", less than 0.5 s");
  }
  for (const Row& row : rows) {
    const auto runs = runs_of(row.label, recording);
    const auto restless = std::count_if(
        runs.begin(), runs.end(), [](const ModelRun* run) { return !run->samples.warmup.settled; });
    if (restless) {
      all.push_back(row.label + ": warm-up never settled in " + std::to_string(restless) + "/" +
                    std::to_string(runs.size()) + " processes");
    }
  }
  for (const Row& row : rows) {
    const auto vary = [&](const char* name, const std::optional<double>& cv) {
      if (!cv || *cv <= kCvLimit) return;
      all.push_back(row.label + ": " + name + " vary by " + share(*cv) + " (limit 5%)");
    };
    vary("calls within a process", row.cv);
    vary("medians of processes", row.cv_processes);
  }
  const Load& load = recording.load;
  const int cpus = recording.host.at("cpus").get<int>();
  if (!load.others && load.load_1m && *load.load_1m > cpus) {
    all.push_back("load average of " + formatted("%g", *load.load_1m) + " on " +
                  std::to_string(cpus) + " CPUs before the start");
  }
  if (load.others && *load.others > kOthersLimit) {
    all.push_back("other processes took " + share(*load.others) + " of the CPUs (limit 5%)");
  }
  if (load.steal && *load.steal > kStealLimit) {
    all.push_back("the hypervisor took " + share(*load.steal) + " of the CPUs (limit 1%)");
  }
  if (load.throttles) {
    all.push_back("throttled " + std::to_string(load.throttles) +
                  " times, by heat, current or the CPU quota");
  }
  if (recording.host.contains("gpu")) all.emplace_back("the GPU's clock was not watched");
  return all;
}

std::vector<std::string> notes(const Recording& recording, const std::vector<Row>& rows) {
  std::vector<std::string> all;
  for (const Row& row : rows) {
    for (const Percentile& value : row.percentiles) {
      if (value.value) continue;
      all.push_back(row.label + ": p" + std::to_string(value.percent) + " " + value.note());
    }
  }
  const double window_s = recording.runs[0].models.begin()->second.samples.warmup.window_s;
  if (window_s < 1) {
    all.push_back("warm-up windows of " + formatted("%g", window_s) +
                  " s instead of 1 s: the run is short");
  }
  if (!recording.load.others) all.emplace_back("the load of other processes is unknown");
  std::string dropped;
  for (const std::string& name : recording.dropped_variables) {
    dropped += (dropped.empty() ? "" : ", ") + name;
  }
  if (!dropped.empty()) all.push_back("environment variables left out: " + dropped);
  return all;
}

Json json(const Load& load) {
  return {{"load_1m", json(load.load_1m)},
          {"own", json(load.own)},
          {"others", json(load.others)},
          {"steal", json(load.steal)},
          {"throttles", load.throttles}};
}

Json conditions(const Recording& recording) {
  Json all = recording.options;
  all.erase("timeout_s");
  Numbers floors;
  for (const Run& run : recording.runs) floors.push_back(run.floor_ns);
  all["loop"] = "closed, one stream";
  all["parts"] = "host to host, in C++: an array in, an array out; no decoding, no preprocessing";
  all["fed"] = "seeded noise";
  all["floor_ns"] = median(floors);
  all["load"] = json(recording.load);
  all["host"] = recording.host;
  return all;
}

Json recorded(const Recording& recording) {
  Json subjects = Json::array(), runs = Json::array();
  for (const Subject& each : recording.subjects) {
    subjects.push_back({{"label", each.label},
                        {"model", each.model},
                        {"provider", each.provider},
                        {"input_name", each.input_name},
                        {"input_shape", each.input_shape},
                        {"sha256", each.sha256},
                        {"data", nullptr},
                        {"runtime", each.runtime},
                        {"precision", each.precision}});
  }
  for (const Run& run : recording.runs) {
    Json models = Json::object();
    for (const auto& [label, model] : run.models) models[label] = recorded(model);
    runs.push_back({{"models", models}, {"floor_ns", run.floor_ns}, {"warnings", Json::array()}});
  }
  return {{"encoding", kEncoding},        {"subjects", subjects},
          {"options", recording.options}, {"runs", runs},
          {"memory", recording.memory},   {"load", json(recording.load)},
          {"host", recording.host},       {"dropped_variables", recording.dropped_variables}};
}

}  // namespace

Json evaluate(const Recording& recording) {
  std::vector<Row> rows;
  Json subjects = Json::array();
  for (const Subject& subject : recording.subjects) {
    auto [row, numbers] = row_of(subject, recording);
    rows.push_back(std::move(row));
    subjects.push_back(std::move(numbers));
  }
  const auto doubts = reasons(recording, rows);
  return {{"subjects", subjects},
          {"verdict", doubts.empty() ? "VALID" : "UNSTABLE"},
          {"reasons", doubts},
          {"notes", notes(recording, rows)},
          {"conditions", conditions(recording)},
          {"recording", recorded(recording)}};
}

}  // namespace convexport::bench
