// TensorRT behind the Session interface, from 8.5 to 11.
#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>

#include "cuda.hpp"
#include "session.hpp"
#include "trt_library.hpp"
#include "trt_plan.hpp"

namespace convexport {
namespace {

constexpr const char* kProvider = "CUDA";

// One tensor of an engine; the shape has the name "batch" where TensorRT has -1.
struct IoTensor {
  TensorSpec spec;
  std::size_t size = 0;  // bytes of an element
  bool input = false;

  // Bytes for that batch, where it may vary; never so many that a sum of three wraps.
  std::size_t bytes(std::int64_t batch) const {
    Shape dims{static_cast<std::int64_t>(size)};
    for (const Dim& dim : spec.shape) {
      const auto* fixed = std::get_if<std::int64_t>(&dim);
      dims.push_back(fixed ? *fixed : batch);
    }
    return std::min(count(dims), std::numeric_limits<std::size_t>::max() / 4);
  }
};

UnsupportedError odd_tensor(const std::string& name, const std::string& where) {
  return UnsupportedError(
      "E0605", "the engine's tensor " + name + " is of a kind that is not handled", where);
}

IoTensor describe(const nvinfer1::ICudaEngine& engine, std::int32_t index) {
  const char* const name = engine.getIOTensorName(index);
  const auto type = trt::dtype(engine.getTensorDataType(name));
  const auto dims = engine.getTensorShape(name);
  const bool on_device = engine.getTensorLocation(name) == nvinfer1::TensorLocation::kDEVICE;
  IoTensor tensor{{name, {}, type.name}, type.size};
  tensor.input = engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
  bool odd = dims.nbDims < 1;
  for (std::int32_t axis = 0; axis < dims.nbDims; ++axis) {
    const std::int64_t size = dims.d[axis];
    odd = odd || (axis > 0 && size < 0);
    tensor.spec.shape.push_back(size < 0 ? Dim("batch") : Dim(size));
  }
  if (odd || !type.size || !on_device) {
    throw odd_tensor(name, tensor.spec.text() + (on_device ? "" : ", read by the host"));
  }
  return tensor;
}

Shape shape_of(const nvinfer1::Dims& dims) { return {dims.d, dims.d + dims.nbDims}; }

nvinfer1::Dims dims_of(const Shape& shape) {
  nvinfer1::Dims dims{};
  for (const std::int64_t size : shape) {
    dims.d[dims.nbDims++] = static_cast<trt::DimSize>(size);
  }
  return dims;
}

// One execution context, whose calls wait for each other: before 10 a profile may be used by one
// context alone, and one GPU gains little by two.
class TrtSession final : public Session {
 public:
  TrtSession(const Cuda& cuda, PlanFacts facts, const std::string& bytes,
             const std::filesystem::path& plan)
      : cuda_(cuda),
        facts_(std::move(facts)),
        stream_(cuda),
        runtime_(trt::Library::get().start()),
        version_("tensorrt " + trt::Library::get().version()) {
    if (facts_.version_compatible) trt::allow_host_code(*runtime_);
    if (facts_.dla) runtime_->setDLACore(static_cast<std::int32_t>(*facts_.dla));
    engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
    if (!engine_) {
      throw InputError("E0316",
                       "TensorRT " + trt::Library::get().version() + " does not load " +
                           plan.filename().string(),
                       plan.string(), trt::Logger::get().told(), "build it again on this machine");
    }
    for (std::int32_t index = 0; index < engine_->getNbIOTensors(); ++index) {
      IoTensor tensor = describe(*engine_, index);
      ++(tensor.input ? inputs_ : outputs_);
      (tensor.input ? input_ : output_) = std::move(tensor);
    }
    if (inputs_ == 1 && outputs_ == 1) {
      prepare();
    } else {
      input_ = output_ = {};  // empty specs fit no manifest
    }
  }

  ~TrtSession() override {
    try {
      cuda_.enter();          // this may be another thread than the one that loaded it
    } catch (const Error&) {  // a lost context has lost its memory too
    }
  }

  const TensorSpec& input() const override { return input_.spec; }
  const TensorSpec& output() const override { return output_.spec; }
  const std::string& runtime() const override { return version_; }

  Tensor run(const float* values, const Shape& shape) const override {
    require_batch(shape);
    const std::lock_guard<std::mutex> lock(mutex_);
    cuda_.enter();
    trt::Logger::get().clear();
    if (shape != shape_) set_shape(shape);
    const std::size_t given = count(shape) * sizeof(float);
    std::memcpy(in_->host(), values, given);
    cuda_.upload(in_->device(), in_->host(), given, stream_.get());
    require(context_->enqueueV3(stream_.get()), "run the engine");
    Tensor result{given_, std::vector<float>(count(given_))};
    const std::size_t taken = result.values.size() * sizeof(float);
    cuda_.download(out_->host(), out_->device(), taken, stream_.get());
    cuda_.synchronize(stream_.get());
    std::memcpy(result.values.data(), out_->host(), taken);
    return result;
  }

 private:
  void prepare() {
    const std::int64_t most = facts_.batch[2];
    const std::size_t in = input_.bytes(most), out = output_.bytes(most);
    const std::size_t needed = trt::device_memory(*engine_) + in + out;
    const std::size_t free = cuda_.free_memory();
    if (needed <= free) context_.reset(engine_->createExecutionContext());
    if (!context_) throw short_of_memory("the engine does not fit", free, needed);
    in_ = std::make_unique<CudaBuffer>(cuda_, in);
    out_ = std::make_unique<CudaBuffer>(cuda_, out);
    set_address(input_, *in_);
    set_address(output_, *out_);
  }

  void set_address(const IoTensor& tensor, const CudaBuffer& buffer) const {
    auto* const address = reinterpret_cast<void*>(buffer.device());
    require(context_->setTensorAddress(tensor.spec.name.c_str(), address), "take an address");
  }

  // Tell the context what comes, and keep what goes out.
  void set_shape(const Shape& shape) const {
    shape_.clear();  // nothing holds if this fails
    require(context_->setInputShape(input_.spec.name.c_str(), dims_of(shape)),
            "take " + input_.spec.name + " as " + text(shape));
    given_ = shape_of(context_->getTensorShape(output_.spec.name.c_str()));
    if (!output_.spec.fits(given_) ||
        count(given_) * output_.size > output_.bytes(facts_.batch[2])) {
      throw odd_tensor(output_.spec.name, text(given_));
    }
    shape_ = shape;
  }

  void require_batch(const Shape& shape) const {
    const bool free = std::holds_alternative<std::string>(input_.spec.shape[0]);
    if (!free || (facts_.batch[0] <= shape[0] && shape[0] <= facts_.batch[2])) return;
    throw UsageError("E0203",
                     "the engine takes batches of " + std::to_string(facts_.batch[0]) + " to " +
                         std::to_string(facts_.batch[2]) + ", not " + std::to_string(shape[0]),
                     "", "", "feed fewer at a time, or build with another --batch");
  }

  void require(bool done, const std::string& what) const {
    if (done) return;
    throw MachineError("E0405", "TensorRT could not " + what, "", trt::Logger::get().told(),
                       "start a new process: this one's GPU context may be lost");
  }

  const Cuda& cuda_;
  PlanFacts facts_;
  CudaStream stream_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<CudaBuffer> in_, out_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  std::string version_;
  IoTensor input_, output_;
  int inputs_ = 0, outputs_ = 0;
  mutable std::mutex mutex_;     // of the context, the buffers and what follows
  mutable Shape shape_, given_;  // that the context is set to, and that it gives then
};

}  // namespace

std::unique_ptr<Session> open_trt_session(const std::filesystem::path& model,
                                          const std::string& provider) {
  if (provider != kProvider) {
    throw MachineError("E0402", "TensorRT is not run on " + provider, kProvider);
  }
  const std::string& version = trt::Library::get().version();
  const Cuda& cuda = Cuda::get();
  const auto plan = find_plan(model);
  auto [facts, bytes] = read_plan(plan, model);
  require_fitting_plan(facts, version, cuda.gpu());
  return std::make_unique<TrtSession>(cuda, std::move(facts), bytes, plan);
}

}  // namespace convexport
