// What stands between the engine and a runtime.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "convexport/engine.hpp"

namespace convexport {

// A loaded model with one input and one output. run may be called by many threads at a time.
class Session {
 public:
  // Is shown an output while that is there.
  using Sink = std::function<void(const float* values, const Shape& shape)>;

  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  virtual ~Session() = default;

  virtual const TensorSpec& input() const = 0;
  virtual const TensorSpec& output() const = 0;
  // With its version.
  virtual const std::string& runtime() const = 0;
  // One forward pass; the shape was held against the input.
  virtual void run(const float* values, const Shape& shape, const Sink& sink) const = 0;
};

// Load a model into ONNX Runtime, onto that provider or none.
// Throws MachineError: E0401 or E0402, ONNX Runtime or the provider is not there or does not take
// the whole model; InputError: E0303, it cannot load the file; E0315, it has several inputs or
// outputs.
std::unique_ptr<Session> open_ort_session(const std::filesystem::path& model,
                                          const std::string& provider, const LoadOptions& options);

// Load a plan into TensorRT on the first visible GPU: the model itself, or what this device built
// from the ONNX file.
// Throws MachineError: E0401, E0402, E0404 to E0409, something is not there, or the plan was built
// for another machine; InputError: E0302 or E0316 to E0318, the plan is damaged or nobody knows
// where it is from; UnsupportedError E0605: a tensor is of an odd kind.
std::unique_ptr<Session> open_trt_session(const std::filesystem::path& model,
                                          const std::string& provider);

// Load a model into the runtime and onto the provider that are named, or fail.
// Throws as those above; MachineError E0401: this library was built without that runtime;
// UnsupportedError E0600: it has no such runtime.
std::unique_ptr<Session> open_session(const std::filesystem::path& model,
                                      const std::string& runtime, const std::string& provider,
                                      const LoadOptions& options);

}  // namespace convexport
