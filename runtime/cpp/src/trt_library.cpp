#include "trt_library.hpp"

#include <dlfcn.h>

#include <algorithm>

#include "convexport/errors.hpp"

namespace convexport::trt {
namespace {

constexpr std::size_t kKept = 20;

std::string soname(const char* library) {
  return std::string(library) + ".so." + std::to_string(NV_TENSORRT_MAJOR);
}

// dlerror has nothing to say of a name that is there but null.
std::string reason() {
  const char* const text = dlerror();
  return text ? text : "";
}

MachineError no_library(const std::string& why) {
  return MachineError("E0401", "running an engine needs TensorRT, which does not load here",
                      soname("libnvinfer"), why,
                      "install it where the loader looks for libraries, or say LD_LIBRARY_PATH");
}

template <typename Function>
Function* find(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

// Plans may use NVIDIA's plugins. Their library wants more of CUDA than TensorRT itself: where it
// does not load, TensorRT says so of the plans that need it.
bool init_plugins() {
  void* const library = dlopen(soname("libnvinfer_plugin").c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return false;
  nvinfer1::ILogger* const base = &Logger::get();
  auto* const init = find<bool(void*, const char*)>(library, "initLibNvInferPlugins");
  return init && init(base, "");
}

}  // namespace

Logger& Logger::get() {
  static Logger& logger = *new Logger;  // never destroyed
  return logger;
}

void Logger::log(Severity severity, const char* text) noexcept {
  if (severity > Severity::kWARNING) return;
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto& lines = severity == Severity::kWARNING ? warnings_ : errors_;
    lines.emplace_back(std::this_thread::get_id(), text);
    if (lines.size() > kKept) lines.pop_front();
  } catch (...) {  // TensorRT, which calls this, lets nothing pass
  }
}

void Logger::clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto mine = [](const auto& line) { return line.first == std::this_thread::get_id(); };
  for (Lines* lines : {&errors_, &warnings_}) {
    lines->erase(std::remove_if(lines->begin(), lines->end(), mine), lines->end());
  }
}

std::string Logger::told() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto joined = [](const Lines& lines) {
    std::string all;
    for (const auto& [thread, text] : lines) {
      if (thread == std::this_thread::get_id()) all += (all.empty() ? "" : " | ") + text;
    }
    return all;
  };
  const std::string errors = joined(errors_);
  return errors.empty() ? joined(warnings_) : errors;
}

const Library& Library::get() {
  static const Library kLibrary;
  return kLibrary;
}

// It stays open: what it started ends with the process.
Library::Library() {
  void* const library = dlopen(soname("libnvinfer").c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) throw no_library(reason());
  auto* const number = find<std::int32_t()>(library, "getInferLibVersion");
  create_runtime_ = find<void*(void*, std::int32_t)>(library, "createInferRuntime_INTERNAL");
  if (!number || !create_runtime_) throw no_library(reason());
  // Another major has other virtual tables under the same names: nothing of it may be called.
  const std::int32_t here = number();
  version_ = version_text(here);
  const std::string headers = version_text(NV_TENSORRT_VERSION);
  const bool major = version_.substr(0, version_.find('.')) == headers.substr(0, headers.find('.'));
  if (!major || here < NV_TENSORRT_VERSION / 100 * 100) {
    throw MachineError("E0408", "TensorRT cannot start here",
                       "found: " + version_ + ", built with the headers of " + headers,
                       "a program runs with the major version that it was built for, from that "
                       "minor version on",
                       "build convexport with the headers of the TensorRT that is here");
  }
  if (auto* const build = find<std::int32_t()>(library, "getInferLibBuildVersion")) {
    version_ += "." + std::to_string(build());
  }
}

std::unique_ptr<nvinfer1::IRuntime> Library::start() const {
  Logger& logger = Logger::get();
  logger.clear();
  static const bool kPlugins = init_plugins();
  (void)kPlugins;
  nvinfer1::ILogger* const base = &logger;
  auto* const made = static_cast<nvinfer1::IRuntime*>(create_runtime_(base, NV_TENSORRT_VERSION));
  if (!made) {
    const std::string why = logger.told();
    throw MachineError("E0408", "TensorRT cannot start here", "",
                       why.empty() ? "no usable CUDA device or driver" : why,
                       "the driver must be new enough for this TensorRT: convexport doctor");
  }
  return std::unique_ptr<nvinfer1::IRuntime>(made);
}

}  // namespace convexport::trt
