// TensorRT's library, opened when a bundle asks for it: one program runs where there is none too.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "trt_versions.hpp"

namespace convexport::trt {

// What TensorRT says while it works: the last of it kept, so that an error is told in its words.
// There is one, for good: TensorRT takes no second, and plugins call theirs until the process ends.
class Logger final : public nvinfer1::ILogger {
 public:
  static Logger& get();

  void log(Severity severity, const char* text) noexcept override;
  // Forget what was said to the calling thread so far.
  void clear();
  // The last errors that the calling thread was told, or where there were none the last warnings.
  std::string told() const;

 private:
  using Lines = std::deque<std::pair<std::thread::id, std::string>>;

  Logger() = default;

  mutable std::mutex mutex_;
  Lines errors_, warnings_;
};

// The library of the major version whose headers this was built with.
class Library {
 public:
  // The one of this process. Throws MachineError: E0401, there is none; E0408, it is of a version
  // that does not go with the headers.
  static const Library& get();

  // Without the last part where the library does not tell it, before 10.
  const std::string& version() const noexcept { return version_; }
  // Throws MachineError E0408: TensorRT cannot start here.
  std::unique_ptr<nvinfer1::IRuntime> start() const;

 private:
  Library();

  void* (*create_runtime_)(void*, std::int32_t);
  std::string version_;
};

}  // namespace convexport::trt
