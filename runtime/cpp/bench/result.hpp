// From a recording to the numbers of a latency report, each with its own doubt: the same as the
// Python side's evaluate gives for the same recording.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "convexport/specs.hpp"
#include "host.hpp"
#include "meter.hpp"

namespace convexport::bench {

// One model to measure.
struct Subject {
  std::string label;  // its name in the result, unlike any other's
  std::string model;  // its file, without a folder
  std::string provider, input_name, sha256, runtime, precision;
  Shape input_shape;  // of one image, without the batch
};

// One fresh process.
struct Run {
  std::map<std::string, ModelRun> models;
  double floor_ns = 0;
};

// All that was recorded; the first subject is the one to compare against.
struct Recording {
  std::vector<Subject> subjects;
  Options options;
  std::vector<Run> runs;
  std::map<std::string, Json> memory;  // peak and baseline in bytes, by label
  Load load;
  Json host;
  std::vector<std::string> dropped_variables;
};

// The numbers, the verdict, why, the conditions, and the recording.
Json evaluate(const Recording& recording);

}  // namespace convexport::bench
