#include "session.hpp"

namespace convexport {

std::unique_ptr<Session> open_session(const std::filesystem::path& model,
                                      const std::string& runtime, const std::string& provider,
                                      const LoadOptions& options) {
  (void)model, (void)provider, (void)options;  // of a library without any runtime
  if (runtime == "onnxruntime") {
#ifdef CONVEXPORT_HAS_ONNXRUNTIME
    return open_ort_session(model, provider, options);
#else
    throw MachineError("E0401", "this library was built without ONNX Runtime", "", "",
                       "build it where onnxruntime_c_api.h is; cmake -DONNXRUNTIME_ROOT=...");
#endif
  }
  if (runtime == "tensorrt") {
#ifdef CONVEXPORT_HAS_TENSORRT
    return open_trt_session(model, provider);
#else
    throw MachineError("E0401", "this library was built without TensorRT", "", "",
                       "build it where NvInferRuntime.h is; cmake -DTENSORRT_ROOT=...");
#endif
  }
  throw UnsupportedError("E0600", "the bundle is for the runtime '" + runtime + "'", "", "",
                         "this version loads onnxruntime, tensorrt");
}

}  // namespace convexport
