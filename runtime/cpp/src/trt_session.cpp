// TensorRT behind the Session interface, from 8.5 to 11.
#include <algorithm>
#include <condition_variable>
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

void require(bool done, const std::string& what) {
  if (done) return;
  throw MachineError("E0405", "TensorRT could not " + what, "", trt::Logger::get().told(),
                     "start a new process: this one's GPU context may be lost");
}

// An engine's two tensors, and the largest batch.
struct Io {
  IoTensor input, output;
  std::int64_t most = 1;
};

// What computes one call at a time: an execution context with memory and a stream of its own.
class Lane {
 public:
  Lane(const Cuda& cuda, nvinfer1::ICudaEngine& engine, const Io& io)
      : cuda_(cuda), io_(io), stream_(cuda) {
    const std::size_t in = io.input.bytes(io.most), out = io.output.bytes(io.most);
    const std::size_t needed = trt::device_memory(engine) + in + out;
    const std::size_t free = cuda_.free_memory();
    if (needed <= free) context_.reset(engine.createExecutionContext());
    if (!context_) throw short_of_memory("the engine does not fit", free, needed);
    in_ = std::make_unique<CudaBuffer>(cuda_, in);
    out_ = std::make_unique<CudaBuffer>(cuda_, out);
    set_address(io.input, *in_);
    set_address(io.output, *out_);
  }

  void run(const float* values, const Shape& shape, const Session::Sink& sink) {
    trt::Logger::get().clear();
    if (shape != shape_) set_shape(shape);
    const std::size_t given = count(shape) * sizeof(float);
    std::memcpy(in_->host(), values, given);
    cuda_.upload(in_->device(), in_->host(), given, stream_.get());
    require(context_->enqueueV3(stream_.get()), "run the engine");
    cuda_.download(out_->host(), out_->device(), count(given_) * sizeof(float), stream_.get());
    cuda_.synchronize(stream_.get());
    sink(static_cast<const float*>(out_->host()), given_);
  }

 private:
  void set_address(const IoTensor& tensor, const CudaBuffer& buffer) {
    auto* const address = reinterpret_cast<void*>(buffer.device());
    require(context_->setTensorAddress(tensor.spec.name.c_str(), address), "take an address");
  }

  // Tell the context what comes, and keep what goes out.
  void set_shape(const Shape& shape) {
    shape_.clear();  // nothing holds if this fails
    const TensorSpec &input = io_.input.spec, &output = io_.output.spec;
    require(context_->setInputShape(input.name.c_str(), dims_of(shape)),
            "take " + input.name + " as " + text(shape));
    given_ = shape_of(context_->getTensorShape(output.name.c_str()));
    if (!output.fits(given_) || count(given_) * io_.output.size > io_.output.bytes(io_.most)) {
      throw odd_tensor(output.name, text(given_));
    }
    shape_ = shape;
  }

  const Cuda& cuda_;
  const Io& io_;
  CudaStream stream_;
  std::unique_ptr<CudaBuffer> in_, out_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  Shape shape_, given_;  // that the context is set to, and that it gives then
};

// The first is made at once, others when calls meet; beyond kMost they wait.
class Lanes {
 public:
  // Each takes memory of its own, and one GPU gains little by more. Before 10 a profile may be used
  // by one context alone.
  static constexpr std::size_t kMost = NV_TENSORRT_MAJOR < 10 ? 1 : 4;

  void open(const Cuda& cuda, nvinfer1::ICudaEngine& engine, const Io& io) {
    make_ = [&cuda, &engine, &io] { return std::make_unique<Lane>(cuda, engine, io); };
    idle_.reserve(kMost);
    idle_.push_back(make_());
  }

  std::unique_ptr<Lane> take() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (idle_.empty() && made_ < most_) {
      try {
        auto lane = make_();
        ++made_;
        return lane;
      } catch (const MachineError&) {  // no room for more of them
        most_ = made_;
      }
    }
    freed_.wait(lock, [this] { return !idle_.empty(); });
    auto lane = std::move(idle_.back());
    idle_.pop_back();
    return lane;
  }

  void give(std::unique_ptr<Lane> lane) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(lane));
    freed_.notify_one();
  }

 private:
  std::function<std::unique_ptr<Lane>()> make_;
  std::vector<std::unique_ptr<Lane>> idle_;
  std::size_t made_ = 1, most_ = kMost;
  std::mutex mutex_;  // of what stands above
  std::condition_variable freed_;
};

class TrtSession final : public Session {
 public:
  TrtSession(const Cuda& cuda, PlanFacts facts, const std::string& bytes,
             const std::filesystem::path& plan)
      : cuda_(cuda),
        facts_(std::move(facts)),
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
    int inputs = 0, outputs = 0;
    for (std::int32_t index = 0; index < engine_->getNbIOTensors(); ++index) {
      IoTensor tensor = describe(*engine_, index);
      ++(tensor.input ? inputs : outputs);
      (tensor.input ? io_.input : io_.output) = std::move(tensor);
    }
    if (inputs == 1 && outputs == 1) {
      io_.most = facts_.batch[2];
      lanes_.open(cuda_, *engine_, io_);
    } else {
      io_ = {};  // empty specs fit no manifest
    }
  }

  ~TrtSession() override {
    try {
      cuda_.enter();          // this may be another thread than the one that loaded it
    } catch (const Error&) {  // a lost context has lost its memory too
    }
  }

  const TensorSpec& input() const override { return io_.input.spec; }
  const TensorSpec& output() const override { return io_.output.spec; }
  const std::string& runtime() const override { return version_; }

  void run(const float* values, const Shape& shape, const Sink& sink) const override {
    require_batch(shape);
    cuda_.enter();
    auto lane = lanes_.take();
    try {
      lane->run(values, shape, sink);
    } catch (...) {
      lanes_.give(std::move(lane));
      throw;
    }
    lanes_.give(std::move(lane));
  }

 private:
  void require_batch(const Shape& shape) const {
    const bool free = std::holds_alternative<std::string>(io_.input.spec.shape[0]);
    if (!free || (facts_.batch[0] <= shape[0] && shape[0] <= facts_.batch[2])) return;
    throw UsageError("E0203",
                     "the engine takes batches of " + std::to_string(facts_.batch[0]) + " to " +
                         std::to_string(facts_.batch[2]) + ", not " + std::to_string(shape[0]),
                     "", "", "feed fewer at a time, or build with another --batch");
  }

  const Cuda& cuda_;
  PlanFacts facts_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::string version_;
  Io io_;
  mutable Lanes lanes_;
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
