// What the machine is and how busy it is: the conditions under which a number holds. Nothing that
// names a person or a machine is read.
#pragma once

#include <filesystem>
#include <optional>

#include "json.hpp"

namespace convexport::bench {

// The kernel's counters at one moment, in seconds of one CPU unless said otherwise.
struct LoadSnapshot {
  std::optional<double> load_1m, total_s, busy_s, steal_s;
  double own_s = 0;            // used by this process and by its children that have ended
  std::int64_t throttles = 0;  // how often a core was slowed, or the quota stopped us, since boot
};

// Between two snapshots; shares are of all CPUs' time, none where unknown.
struct Load {
  std::optional<double> load_1m, own, others, steal;
  std::int64_t throttles = 0;
};

// The machine, with the names that the Python side gives. The root is that of the file system.
Json describe_host(const std::filesystem::path& root = "/");
// How many CPUs this process may run on.
int affinity();
// How many it can keep busy: its affinity, cut to its quota; at least 1.
int cores(const std::filesystem::path& root = "/");
LoadSnapshot load_snapshot(const std::filesystem::path& root = "/");
Load load_between(const LoadSnapshot& before, const LoadSnapshot& after);

// The largest resident set of this process so far in bytes, null where nobody says.
Json peak_rss();

}  // namespace convexport::bench
