// ONNX Runtime behind the Session interface, through its C API, to which releases only add.
#include <algorithm>
#include <array>

#include "cpu.hpp"
#include "ort_failures.hpp"
#include "ort_library.hpp"
#include "session.hpp"

namespace convexport {
namespace {

const OrtApi& api() { return *OrtLibrary::get().api; }

// What went wrong, in ONNX Runtime's own words.
class Failed : public MachineError {
 public:
  explicit Failed(const std::string& why)
      : MachineError("E0414", "ONNX Runtime failed", "", why.substr(0, 500)) {}
};

void check(OrtStatus* status) {
  if (!status) return;
  const std::string why = api().GetErrorMessage(status);
  api().ReleaseStatus(status);
  throw Failed(why);
}

// What ONNX Runtime made, and how it is given back.
template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

template <typename T, typename... Arguments, typename... Given>
Owned<T> make(OrtStatus* (*create)(Arguments...), void (*release)(T*), Given... given) {
  T* made = nullptr;
  check(create(given..., &made));
  return {made, release};
}

std::vector<std::string> providers() {
  char** names = nullptr;
  int size = 0;
  check(api().GetAvailableProviders(&names, &size));
  std::vector<std::string> found(names, names + size);
  check(api().ReleaseAvailableProviders(names, size));
  return found;
}

void append_cuda(OrtSessionOptions* options) {
  const auto cuda = make(api().CreateCUDAProviderOptions, api().ReleaseCUDAProviderOptions);
  // TF32 would cut FP32 products to 10 bits.
  const std::array<const char*, 1> keys = {"use_tf32"}, values = {"0"};
  check(api().UpdateCUDAProviderOptions(cuda.get(), keys.data(), values.data(), keys.size()));
  check(api().SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda.get()));
  // A node that quietly ran on the CPU would be measured as if it had not.
  check(api().AddSessionConfigEntry(options, "session.disable_cpu_ep_fallback", "1"));
}

Owned<OrtSessionOptions> session_options(const std::string& provider, const LoadOptions& wanted) {
  auto options = make(api().CreateSessionOptions, api().ReleaseSessionOptions);
  OrtSessionOptions* raw = options.get();
  check(api().SetSessionLogSeverityLevel(raw, ORT_LOGGING_LEVEL_ERROR));
  check(api().SetIntraOpNumThreads(raw, wanted.threads));
  const char* spin = wanted.spin ? "1" : "0";
  check(api().AddSessionConfigEntry(raw, "session.intra_op.allow_spinning", spin));
  // Kernels that do not overflow; where there is VNNI they would be three times as slow.
  if (overflows()) check(api().AddSessionConfigEntry(raw, "session.x64quantprecision", "1"));
  if (provider == "CUDAExecutionProvider") append_cuda(raw);
  return options;
}

std::string dtype_name(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return "float32";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      return "float16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
      return "uint8";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
      return "float64";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return "int8";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return "int32";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      return "int64";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      return "bool";
    default:
      return "type " + std::to_string(static_cast<int>(type));
  }
}

TensorSpec spec_of(const OrtTypeInfo* info, std::string name) {
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;  // belongs to info
  check(api().CastTypeInfoToTensorInfo(info, &tensor));
  if (!tensor) throw Failed(name + " is no tensor");
  ONNXTensorElementDataType type{};
  check(api().GetTensorElementType(tensor, &type));
  std::size_t rank = 0;
  check(api().GetDimensionsCount(tensor, &rank));
  std::vector<std::int64_t> sizes(rank);
  std::vector<const char*> names(rank);
  check(api().GetDimensions(tensor, sizes.data(), rank));
  check(api().GetSymbolicDimensions(tensor, names.data(), rank));
  TensorSpec spec{std::move(name), {}, dtype_name(type)};
  for (std::size_t axis = 0; axis < rank; ++axis) {
    const std::string free = *names[axis] ? names[axis] : "dim" + std::to_string(axis);
    spec.shape.push_back(sizes[axis] >= 0 ? Dim(sizes[axis]) : Dim(free));
  }
  return spec;
}

class OnnxRuntimeSession final : public Session {
 public:
  OnnxRuntimeSession(const std::filesystem::path& model, const std::string& provider,
                     const LoadOptions& options)
      : environment_(
            make(api().CreateEnv, api().ReleaseEnv, ORT_LOGGING_LEVEL_ERROR, "convexport")),
        session_(nullptr, api().ReleaseSession),
        memory_(make(api().CreateCpuMemoryInfo, api().ReleaseMemoryInfo, OrtArenaAllocator,
                     OrtMemTypeDefault)),
        model_(model.string()),
        runtime_("onnxruntime " + OrtLibrary::get().version) {
    check(api().DisableTelemetryEvents(environment_.get()));
    const auto wanted = session_options(provider, options);
    // By path, so that external data stays confined to the file's own directory.
    session_ = make(api().CreateSession, api().ReleaseSession,
                    static_cast<const OrtEnv*>(environment_.get()), model.c_str(),
                    static_cast<const OrtSessionOptions*>(wanted.get()));
    std::size_t inputs = 0, outputs = 0;
    check(api().SessionGetInputCount(session_.get(), &inputs));
    check(api().SessionGetOutputCount(session_.get(), &outputs));
    if (inputs != 1 || outputs != 1) return;  // the specs stay empty, and fit no manifest
    input_ = describe(api().SessionGetInputName, api().SessionGetInputTypeInfo);
    output_ = describe(api().SessionGetOutputName, api().SessionGetOutputTypeInfo);
  }

  const TensorSpec& input() const override { return input_; }
  const TensorSpec& output() const override { return output_; }
  const std::string& runtime() const override { return runtime_; }

  void run(const float* values, const Shape& shape, const Sink& sink) const override {
    try {
      const Owned<OrtValue> output = computed(values, shape);
      give(output.get(), sink);
    } catch (const Failed& failed) {
      throw InputError("E0303", "ONNX Runtime cannot run the model", model_, failed.why());
    }
  }

 private:
  Owned<OrtValue> computed(const float* values, const Shape& shape) const {
    OrtValue* given = nullptr;
    // ONNX Runtime asks for memory that may be written, and does not write inputs.
    check(api().CreateTensorWithDataAsOrtValue(
        memory_.get(), const_cast<float*>(values), count(shape) * sizeof(float), shape.data(),
        shape.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &given));
    const Owned<OrtValue> input(given, api().ReleaseValue);
    const char *taken = input_.name.c_str(), *wanted = output_.name.c_str();
    const OrtValue* inputs = given;
    OrtValue* result = nullptr;
    check(api().Run(session_.get(), nullptr, &taken, &inputs, 1, &wanted, 1, &result));
    return {result, api().ReleaseValue};
  }

  template <typename Name, typename Type>
  TensorSpec describe(Name name_of, Type type_of) const {
    OrtAllocator* allocator = nullptr;  // ONNX Runtime's own
    check(api().GetAllocatorWithDefaultOptions(&allocator));
    char* text = nullptr;
    check(name_of(session_.get(), 0, allocator, &text));
    std::string name = text;
    check(api().AllocatorFree(allocator, text));
    OrtTypeInfo* type = nullptr;
    check(type_of(session_.get(), 0, &type));
    const Owned<OrtTypeInfo> owned(type, api().ReleaseTypeInfo);
    return spec_of(type, std::move(name));
  }

  static void give(OrtValue* value, const Sink& sink) {
    OrtTensorTypeAndShapeInfo* raw = nullptr;
    check(api().GetTensorTypeAndShape(value, &raw));
    const Owned<OrtTensorTypeAndShapeInfo> info(raw, api().ReleaseTensorTypeAndShapeInfo);
    std::size_t rank = 0;
    check(api().GetDimensionsCount(raw, &rank));
    Shape shape(rank);
    check(api().GetDimensions(raw, shape.data(), rank));
    void* data = nullptr;
    check(api().GetTensorMutableData(value, &data));
    sink(static_cast<const float*>(data), shape);
  }

  Owned<OrtEnv> environment_;  // before the session, which needs it until its end
  Owned<OrtSession> session_;
  Owned<OrtMemoryInfo> memory_;
  std::string model_, runtime_;
  TensorSpec input_, output_;
};

}  // namespace

std::unique_ptr<Session> open_ort_session(const std::filesystem::path& model,
                                          const std::string& provider, const LoadOptions& options) {
  const auto here = providers();
  std::string available;
  for (const std::string& each : here) available += (available.empty() ? "" : ", ") + each;
  const bool ours = provider == "CPUExecutionProvider" || provider == "CUDAExecutionProvider";
  if (!ours || std::find(here.begin(), here.end(), provider) == here.end()) {
    throw missing_provider(provider, available);
  }
  try {
    return std::make_unique<OnnxRuntimeSession>(model, provider, options);
  } catch (const Failed& failed) {
    throw_ort_failure(failed.why(), provider, available, model);
  }
}

}  // namespace convexport
