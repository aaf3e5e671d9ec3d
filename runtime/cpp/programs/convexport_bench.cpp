// Latency of a bundle on this machine: convexport bench, without Python.
#include <cmath>
#include <cstdio>

#include "child.hpp"
#include "latency.hpp"
#include "terminal.hpp"

namespace {

using convexport::Json;
using Row = std::vector<std::string>;

std::string formatted(const char* format, double value) {
  char text[64];
  (void)std::snprintf(text, sizeof text, format, value);
  return text;
}

// How many characters a text shows.
std::size_t width(const std::string& text) {
  std::size_t shown = 0;
  for (const char byte : text) shown += (static_cast<unsigned char>(byte) & 0xc0) != 0x80;
  return shown;
}

std::string milliseconds(const Json& percentile) {
  const Json& value = percentile.at("value");
  return value.is_null() ? "n too small" : formatted("%.3g ms", value.get<double>());
}

std::string between(const Json& low, const Json& high, const char* format) {
  if (low.is_null()) return {};
  return formatted(format, low.get<double>()) + "–" + formatted(format, high.get<double>());
}

std::string speedup(const Json& ratio) {
  if (ratio.is_null()) return "baseline";
  const std::string value = formatted("%.2f×", ratio.at("value").get<double>());
  const std::string ends = between(ratio.at("low"), ratio.at("high"), "%.2f");
  return ends.empty() ? value : value + " (" + ends + ")";
}

Row row(const Json& subject) {
  const Json &percentiles = subject.at("percentiles_ms"), &images = subject.at("throughput");
  const Json& p50 = percentiles.at("p50");
  return {tame(subject.at("label").get<std::string>()),
          milliseconds(p50),
          between(p50.at("low"), p50.at("high"), "%.3g"),
          milliseconds(percentiles.at("p90")),
          milliseconds(percentiles.at("p99")),
          images.is_null() ? "" : formatted("%.1f", images.get<double>()),
          speedup(subject.at("speedup"))};
}

// The first column to the left, the others, numbers, to the right.
void print_table(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths(rows[0].size());
  for (const Row& cells : rows) {
    for (std::size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], width(cells[i]));
  }
  for (const Row& cells : rows) {
    std::string line;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string blank(widths[i] - width(cells[i]), ' ');
      line += i == 0 ? cells[i] + blank : "  " + blank + cells[i];
    }
    std::printf("%s\n", line.c_str());
  }
}

void print(const Json& result) {
  std::vector<Row> rows = {
      {"latency", "p50", "95 % interval", "p90", "p99", "images/s", "speed-up"}};
  std::size_t fewest = 0;
  std::string runtimes;
  for (const Json& subject : result.at("subjects")) {
    rows.push_back(row(subject));
    const auto n = subject.at("n").get<std::size_t>();
    fewest = rows.size() == 2 ? n : std::min(fewest, n);
    const auto runtime = subject.at("runtime").get<std::string>();
    if (runtimes != runtime) runtimes += (runtimes.empty() ? "" : ", ") + runtime;
  }
  print_table(rows);
  const Json& conditions = result.at("conditions");
  const Json& host = conditions.at("host");
  const Json& cpu = host.at("cpu");
  const std::string computes =
      host.contains("gpu") ? host.at("gpu").at("name").get<std::string>()
                           : std::to_string(conditions.at("threads").get<int>()) + " threads";
  std::printf("%s: batch %d, %s, %d processes, n≥%zu, %s, %s\n",
              result.at("verdict").get<std::string>().c_str(), conditions.at("batch").get<int>(),
              tame(computes).c_str(), conditions.at("processes").get<int>(), fewest,
              tame(runtimes).c_str(), cpu.is_null() ? "" : tame(cpu.get<std::string>()).c_str());
  for (const Json& reason : result.at("reasons")) {
    std::printf("  %s\n", tame(reason.get<std::string>()).c_str());
  }
  std::printf("parity: the golden sample alone; convexport verify tells more\n");
}

int worker(const std::string& request) {
  return convexport::bench::answer(convexport::bench::work, request);
}

int command(int count, char** arguments) {
  std::string bundle, request;
  bool as_json = false;
  convexport::bench::Options options;
  options.threads = convexport::bench::cores();
  CLI::App app{"Latency of a bundle of convexport, beside its own FP32 reference"};
  auto* const asked = app.add_option("--worker", request)->group("");  // by this program alone
  auto* const named = app.add_option("BUNDLE", bundle, "The directory that convexport build wrote");
  named->excludes(asked);
  app.add_option("--seconds", options.duration_s, "For each model; at most ten hours")
      ->capture_default_str()
      ->check(CLI::Range(1e-3, 36000.0));
  app.add_option("--processes", options.processes, "Fresh processes; a claim needs five")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--batch", options.batch, "Images a call")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", options.threads,
                 "Of the runtime; default: as many as there are cores")
      ->check(CLI::PositiveNumber);
  app.add_option("--seed", options.seed, "Of the order and the noise")
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 62));  // each process adds to it
  app.add_flag("--json", as_json, "The whole result, with the raw samples");
  return guarded(app, count, arguments, [&] {
    if (asked->count()) return worker(request);
    if (!named->count()) throw CLI::RequiredError("BUNDLE");
    if (std::isnan(options.duration_s)) {  // which is outside no range
      throw CLI::ValidationError("--seconds", "not a number");
    }
    const auto report = [](const std::string& text) { std::cerr << "  " << tame(text) << '\n'; };
    const Json result = convexport::bench::measure_bundle(bundle, options, report);
    if (as_json) {
      const Json whole = {{"latency", result}};  // as in what convexport bench --json writes
      std::cout << whole.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
    } else {
      print(result);
    }
    return 0;
  });
}

}  // namespace

int main(int count, char** arguments) { return last_resort(command, count, arguments); }
