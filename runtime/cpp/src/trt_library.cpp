#include "trt_library.hpp"

#include <dlfcn.h>

#include "convexport/errors.hpp"

namespace convexport::trt {
namespace {

constexpr std::size_t kKept = 20;

std::string soname(const char* library) {
  return std::string(library) + ".so." + std::to_string(NV_TENSORRT_MAJOR);
}

std::string joined(const std::deque<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : " | ") + line;
  return text;
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
void init_plugins(Logger& logger) {
  void* const library = dlopen(soname("libnvinfer_plugin").c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return;
  nvinfer1::ILogger* const base = &logger;
  if (auto* init = find<bool(void*, const char*)>(library, "initLibNvInferPlugins")) init(base, "");
}

}  // namespace

void Logger::log(Severity severity, const char* text) noexcept {
  if (severity > Severity::kWARNING) return;
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto& lines = severity == Severity::kWARNING ? warnings_ : errors_;
    lines.emplace_back(text);
    if (lines.size() > kKept) lines.pop_front();
  } catch (...) {  // TensorRT, which calls this, lets nothing pass
  }
}

std::string Logger::told() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return joined(errors_.empty() ? warnings_ : errors_);
}

const Library& Library::get() {
  static const Library kLibrary;
  return kLibrary;
}

// It stays open: what it started ends with the process.
Library::Library() {
  void* const library = dlopen(soname("libnvinfer").c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) throw no_library(dlerror());
  auto* const number = find<std::int32_t()>(library, "getInferLibVersion");
  create_runtime_ = find<void*(void*, std::int32_t)>(library, "createInferRuntime_INTERNAL");
  if (!number || !create_runtime_) throw no_library(dlerror());
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

std::unique_ptr<nvinfer1::IRuntime> Library::start(Logger& logger) const {
  init_plugins(logger);
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
