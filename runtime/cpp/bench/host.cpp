#include "host.hpp"

#include <gnu/libc-version.h>
#include <sched.h>
#include <sys/times.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

namespace convexport::bench {
namespace {

namespace fs = std::filesystem;

// What decides which kernels a runtime picks.
constexpr const char* kFlags[] = {"avx2",     "fma",      "avx512f", "avx512_vnni", "avx_vnni",
                                  "amx_int8", "amx_bf16", "neon",    "asimd",       "asimddp",
                                  "asimdhp",  "i8mm",     "sve",     "hypervisor"};

// A file's text without zeros and space at its ends; "" where there is none.
std::string text_of(const fs::path& path) {
  const std::ifstream file(path, std::ios::binary);
  std::ostringstream all;
  all << file.rdbuf();
  const std::string text = all.str(), blank("\0\n ", 3);
  const std::size_t begin = text.find_first_not_of(blank);
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(blank) - begin + 1);
}

Json or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

std::string stripped(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

// The first CPU's lines of /proc/cpuinfo.
std::map<std::string, std::string> cpuinfo(const fs::path& root) {
  std::map<std::string, std::string> found;
  std::istringstream lines(text_of(root / "proc/cpuinfo"));
  for (std::string line; std::getline(lines, line) && !line.empty();) {
    const std::size_t colon = std::min(line.find(':'), line.size());
    found[stripped(line.substr(0, colon))] =
        stripped(line.substr(std::min(colon + 1, line.size())));
  }
  return found;
}

Json cpu_model(const fs::path& root, std::map<std::string, std::string>& info) {
  if (!info["model name"].empty()) return info["model name"];
  std::string board = text_of(root / "proc/device-tree/model");
  if (!board.empty()) return board;
  if (info["CPU part"].empty()) return nullptr;
  return "ARM implementer " + info["CPU implementer"] + " part " + info["CPU part"];
}

// The number after a key at the beginning of a line, 0 without one.
std::int64_t number_after(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, key.size(), key) == 0) {
      return std::strtoll(line.c_str() + key.size(), nullptr, 10);
    }
  }
  return 0;
}

template <typename Action>
void each_entry(const fs::path& folder, Action action) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    action(entry.path(), entry.path().filename().string());
  }
}

bool numbered(const std::string& name, const std::string& kind) {
  return name.size() > kind.size() && name.compare(0, kind.size(), kind) == 0 &&
         name[kind.size()] >= '0' && name[kind.size()] <= '9';
}

// The cgroup's quota in CPUs, the tightest on the way to the top.
std::optional<double> cpu_quota(const fs::path& root) {
  std::optional<double> tightest;
  const auto take = [&tightest](double quota) {
    tightest = std::min(tightest.value_or(quota), quota);
  };
  const auto walk = [&root](const char* mount, const std::string& path, auto read) {
    const fs::path top = root / mount;
    fs::path folder = top / fs::path(path).relative_path();
    for (; folder != top && folder.has_relative_path(); folder = folder.parent_path()) read(folder);
    read(top);
  };
  std::istringstream lines(text_of(root / "proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") {
      walk("sys/fs/cgroup", path, [&](const fs::path& folder) {
        std::istringstream words(text_of(folder / "cpu.max"));
        double quota = 0, period = 100'000;
        if (words >> quota) take(quota / (words >> period ? period : 100'000));
      });
    } else if (controllers.find(",cpu,") != std::string::npos) {
      walk("sys/fs/cgroup/cpu", path, [&](const fs::path& folder) {
        const double quota = std::strtod(text_of(folder / "cpu.cfs_quota_us").c_str(), nullptr);
        const double period = std::strtod(text_of(folder / "cpu.cfs_period_us").c_str(), nullptr);
        if (quota > 0) take(quota / (period > 0 ? period : 100'000));
      });
    }
  }
  return tightest;
}

std::int64_t throttles(const fs::path& root) {
  std::int64_t count = 0;
  const auto add = [&count](const fs::path& file) {
    count += std::strtoll(text_of(file).c_str(), nullptr, 10);
  };
  each_entry(root / "sys/devices/system/cpu", [&](const fs::path& cpu, const std::string& name) {
    if (numbered(name, "cpu")) add(cpu / "thermal_throttle/core_throttle_count");
  });
  // Jetson counts here how often too much current, or too low a voltage, slowed it.
  each_entry(root / "sys/class/hwmon", [&](const fs::path& sensor, const std::string&) {
    each_entry(sensor, [&](const fs::path& file, const std::string& name) {
      if (name.compare(0, 2, "oc") == 0 && name.find("_event_cnt") != std::string::npos) add(file);
    });
  });
  for (const char* group : {"sys/fs/cgroup/cpu.stat", "sys/fs/cgroup/cpu/cpu.stat"}) {
    count += number_after(text_of(root / group), "nr_throttled ");
  }
  return count;
}

}  // namespace

int affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int cores(const fs::path& root) {
  const auto quota = cpu_quota(root);
  if (!quota) return affinity();
  return std::max(1, std::min(affinity(), static_cast<int>(std::floor(*quota))));
}

Json describe_host(const fs::path& root) {
  auto info = cpuinfo(root);
  std::istringstream words(info["flags"].empty() ? info["Features"] : info["flags"]);
  const std::vector<std::string> has{std::istream_iterator<std::string>(words), {}};
  Json flags = Json::array();
  for (const char* flag : kFlags) {
    if (std::find(has.begin(), has.end(), flag) != has.end()) flags.push_back(flag);
  }
  int nodes = 0;
  each_entry(root / "sys/devices/system/node", [&nodes](const fs::path&, const std::string& name) {
    nodes += numbered(name, "node");
  });
  const std::int64_t ram = number_after(text_of(root / "proc/meminfo"), "MemTotal:") * 1024;
  const auto quota = cpu_quota(root);
  utsname names{};
  (void)uname(&names);
  return {
      {"cpu", cpu_model(root, info)},
      {"microcode", or_null(info["microcode"])},
      {"machine", names.machine},
      {"cpus", affinity()},
      {"cpu_quota", quota ? Json(*quota) : Json()},
      {"smt", text_of(root / "sys/devices/system/cpu/smt/active") == "1"},
      {"numa_nodes", nodes ? Json(nodes) : Json()},
      {"flags", flags},
      {"governor", or_null(text_of(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))},
      {"ram_bytes", ram ? Json(ram) : Json()},
      {"kernel", std::string(names.sysname) + " " + names.release},
      {"libc", std::string("glibc ") + gnu_get_libc_version()},
      {"python", nullptr},
      {"packages", Json::object()}};
}

LoadSnapshot load_snapshot(const fs::path& root) {
  LoadSnapshot now;
  std::istringstream load(text_of(root / "proc/loadavg"));
  double value = 0;
  if (load >> value) now.load_1m = value;
  const auto hertz = static_cast<double>(sysconf(_SC_CLK_TCK));
  std::istringstream stat(text_of(root / "proc/stat"));
  std::string cpu;
  stat >> cpu;
  // user nice system idle iowait irq softirq steal; guests are inside user already
  std::vector<double> ticks(8);
  for (double& tick : ticks) stat >> tick;
  if (stat) {
    now.total_s = 0;
    for (const double tick : ticks) *now.total_s += tick / hertz;
    now.steal_s = ticks[7] / hertz;
    now.busy_s = *now.total_s - ticks[3] / hertz - ticks[4] / hertz - *now.steal_s;
  }
  tms spent{};
  (void)times(&spent);  // whose only error is a bad address
  const auto own = spent.tms_utime + spent.tms_stime + spent.tms_cutime + spent.tms_cstime;
  now.own_s = static_cast<double>(own) / hertz;
  now.throttles = throttles(root);
  return now;
}

Load load_between(const LoadSnapshot& before, const LoadSnapshot& after) {
  Load load{before.load_1m, {}, {}, {}, after.throttles - before.throttles};
  if (!before.total_s || !after.total_s || *after.total_s <= *before.total_s) return load;
  const double total = *after.total_s - *before.total_s;
  load.own = (after.own_s - before.own_s) / total;
  load.others =
      std::max(0.0, (after.busy_s.value_or(0) - before.busy_s.value_or(0)) / total - *load.own);
  load.steal = std::max(0.0, (after.steal_s.value_or(0) - before.steal_s.value_or(0)) / total);
  return load;
}

Json peak_rss() {
  const std::int64_t kib = number_after(text_of("/proc/self/status"), "VmHWM:");
  return kib ? Json(kib * 1024) : Json();
}

}  // namespace convexport::bench
