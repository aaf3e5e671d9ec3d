// A TensorRT that is not there, behind the names of double.hpp: its "plans" are text, "running" one
// is a multiplication by a matrix between addresses of the fake CUDA driver of tests/trt. It proves
// that calls are wired up; nothing about TensorRT or a GPU. A plan's lines are
//   tensor in|out NAME TYPE LOCATION DIM...    TYPE and LOCATION as numbers, -1 for the batch
//   batch LEAST MOST      memory BYTES      needs host-code|dla N      weights ROWS COLUMNS
//   VALUE...
// FAKE_TRT_FAIL names what fails: runtime, context, shape, enqueue; context:1 the second
// context. FAKE_TRT_VERSION is what it says to be. FAKE_TRT_MOST names a file in which it counts
// how many calls ran at once; each takes a while then.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace nvinfer1;

bool fails(const char* what) {
  const char* const text = std::getenv("FAKE_TRT_FAIL");
  return text && std::string(text) == what;
}

void* on_host(void* device) {
  static void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  using Call = void*(std::uint64_t);
  return reinterpret_cast<Call*>(dlsym(driver, "fake_device"))(
      reinterpret_cast<std::uint64_t>(device));
}

struct Tensor {
  TensorIOMode mode;
  std::string name;
  DataType type;
  TensorLocation location;
  Dims dims{};
};

struct Plan {
  std::vector<Tensor> tensors;
  std::int64_t least = 1, most = 1, memory = 0;
  bool host_code = false;
  int dla = -1;
  std::size_t rows = 0, columns = 0;
  std::vector<float> weights;

  const Tensor& named(const char* name) const {
    for (const Tensor& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    std::abort();
  }
};

Tensor read_tensor(std::istream& words) {
  Tensor tensor{};
  std::string mode;
  int type = 0, location = 0;
  words >> mode >> tensor.name >> type >> location;
  tensor.mode = mode == "in" ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  tensor.type = static_cast<DataType>(type);
  tensor.location = static_cast<TensorLocation>(location);
  for (int dim = 0; words >> dim;) tensor.dims.d[tensor.dims.nbDims++] = dim;
  return tensor;
}

Plan read_plan(const std::string& text) {
  Plan plan;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string kind, what;
    words >> kind;
    if (kind == "tensor") plan.tensors.push_back(read_tensor(words));
    if (kind == "batch") words >> plan.least >> plan.most;
    if (kind == "memory") words >> plan.memory;
    if (kind == "needs") words >> what;
    if (what == "host-code") plan.host_code = true;
    if (what == "dla") words >> plan.dla;
    if (kind == "weights") words >> plan.rows >> plan.columns;
    for (float value = 0; kind == "weights" && words >> value;) plan.weights.push_back(value);
  }
  return plan;
}

// Whoever is inside counts.
class Visit {
 public:
  Visit() {
    const char* const file = std::getenv("FAKE_TRT_MOST");
    if (!file) return;
    {
      const std::lock_guard<std::mutex> lock(mutex());
      if (++now() > most()) std::ofstream(file) << (most() = now());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const std::lock_guard<std::mutex> lock(mutex());
    --now();
  }

 private:
  static std::mutex& mutex() {
    static std::mutex one;
    return one;
  }
  static int& now() {
    static int count = 0;
    return count;
  }
  static int& most() {
    static int count = 0;
    return count;
  }
};

// Aborts where it goes before what was made from it.
struct Parent {
  int children = 0;
  ~Parent() {
    if (children) std::abort();
  }
};

class Context final : public IExecutionContext {
 public:
  Context(const Plan& plan, ILogger& logger, Parent& parent)
      : plan_(plan), logger_(logger), parent_(parent) {
    ++parent_.children;
  }
  ~Context() override { --parent_.children; }

  bool setInputShape(char const* name, Dims const& dims) noexcept override {
    const bool free = plan_.named(name).dims.d[0] < 0;
    if (fails("shape") || (free && (dims.d[0] < plan_.least || dims.d[0] > plan_.most))) {
      logger_.log(ILogger::Severity::kERROR, "the double refuses a shape");
      return false;
    }
    batch_ = dims.d[0];
    return true;
  }
  Dims getTensorShape(char const* name) const noexcept override {
    Dims dims = plan_.named(name).dims;
    if (dims.d[0] < 0)
      dims.d[0] = static_cast<std::remove_reference_t<decltype(dims.d[0])>>(batch_);
    return dims;
  }
  bool setTensorAddress(char const* name, void* address) noexcept override {
    addresses_[name] = address;
    return reinterpret_cast<std::uintptr_t>(address) % 256 == 0;
  }
  bool enqueueV3(cudaStream_t stream) noexcept override {
    if (!stream || fails("enqueue")) {
      logger_.log(ILogger::Severity::kINTERNAL_ERROR, "the double refuses to run");
      return false;
    }
    const Visit visit;
    float *in = nullptr, *out = nullptr;
    for (const Tensor& tensor : plan_.tensors) {
      auto* const host = static_cast<float*>(on_host(addresses_.at(tensor.name)));
      (tensor.mode == TensorIOMode::kINPUT ? in : out) = host;
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(batch_) * plan_.rows; ++i) {
      const std::size_t image = i / plan_.rows, row = i % plan_.rows;
      out[i] = 0;
      for (std::size_t k = 0; k < plan_.columns; ++k) {
        out[i] += in[image * plan_.columns + k] * plan_.weights[row * plan_.columns + k];
      }
    }
    return true;
  }

 private:
  const Plan& plan_;
  ILogger& logger_;
  Parent& parent_;
  std::int64_t batch_ = -1;
  std::map<std::string, void*> addresses_;
};

class Engine final : public ICudaEngine {
 public:
  Engine(Plan plan, ILogger& logger, Parent& parent)
      : plan_(std::move(plan)), logger_(logger), parent_(parent) {
    ++parent_.children;
  }
  ~Engine() override { --parent_.children; }

  std::int32_t getNbIOTensors() const noexcept override {
    return static_cast<std::int32_t>(plan_.tensors.size());
  }
  char const* getIOTensorName(std::int32_t index) const noexcept override {
    return plan_.tensors[static_cast<std::size_t>(index)].name.c_str();
  }
  DataType getTensorDataType(char const* name) const noexcept override {
    return plan_.named(name).type;
  }
  TensorLocation getTensorLocation(char const* name) const noexcept override {
    return plan_.named(name).location;
  }
  TensorIOMode getTensorIOMode(char const* name) const noexcept override {
    return plan_.named(name).mode;
  }
  Dims getTensorShape(char const* name) const noexcept override { return plan_.named(name).dims; }
#if CONVEXPORT_SINCE(10, 1)
  std::int64_t getDeviceMemorySizeV2() const noexcept override { return plan_.memory; }
#else
  std::size_t getDeviceMemorySize() const noexcept override {
    return static_cast<std::size_t>(plan_.memory);
  }
#endif
  IExecutionContext* createExecutionContext() noexcept override {
    const bool second = contexts_.children == 1 && fails("context:1");
    return second || fails("context") ? nullptr : new Context(plan_, logger_, contexts_);
  }

 private:
  Plan plan_;
  ILogger& logger_;
  Parent& parent_;
  Parent contexts_;
};

class Runtime final : public IRuntime {
 public:
  explicit Runtime(ILogger& logger) : logger_(logger) {}
  ~Runtime() override { logger_.log(ILogger::Severity::kVERBOSE, "the double ends"); }

  ICudaEngine* deserializeCudaEngine(void const* bytes, std::size_t size) noexcept override {
    Plan plan = read_plan(std::string(static_cast<const char*>(bytes), size));
    const bool fine = !plan.tensors.empty() && plan.dla == dla_ && plan.host_code == host_code_;
    if (fine) return new Engine(std::move(plan), logger_, engines_);
    logger_.log(ILogger::Severity::kERROR, "no plan of the double");
    logger_.log(ILogger::Severity::kERROR, "or not told what it needs");
    return nullptr;
  }
  void setDLACore(std::int32_t core) noexcept override { dla_ = core; }
#if CONVEXPORT_SINCE(8, 6)
  void setEngineHostCodeAllowed(bool allowed) noexcept override { host_code_ = allowed; }
#endif

 private:
  ILogger& logger_;
  std::int32_t dla_ = -1;
  bool host_code_ = false;
  Parent engines_;
};

// As the real one it knows one logger alone, and has something to say at the very end.
struct Keeper {
  ILogger* logger;
  ~Keeper() { logger->log(ILogger::Severity::kWARNING, "the double is unloaded"); }
};

}  // namespace

extern "C" {

std::int32_t getInferLibVersion() noexcept {
  const char* const says = std::getenv("FAKE_TRT_VERSION");
  return says ? std::atoi(says) : NV_TENSORRT_VERSION;
}
#if CONVEXPORT_SINCE(10, 0)
std::int32_t getInferLibBuildVersion() noexcept { return NV_TENSORRT_BUILD; }
#endif
void* createInferRuntime_INTERNAL(void* logger, std::int32_t version) noexcept {
  auto& base = *static_cast<ILogger*>(logger);
  static const Keeper keeper{&base};
  if (keeper.logger != &base) std::abort();
  base.log(ILogger::Severity::kWARNING, "the double warns");
  if (fails("runtime") || version != NV_TENSORRT_VERSION) return nullptr;
  return new Runtime(base);
}
}
