#include "latency.hpp"

#include <chrono>
#include <random>

#include "child.hpp"
#include "convexport/engine.hpp"
#include "cuda.hpp"
#include "files.hpp"
#include "session.hpp"
#include "unicode.hpp"

namespace convexport::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kMemoryCalls = 10;
constexpr const char* kReference = "fp32 reference";

struct Loaded {
  std::unique_ptr<Session> session;
  Tensor images;
  double load_ms = 0;
};

// Normal noise, as normalised pixels are: never zeros, for which kernels and denormals are not
// those of a picture.
Tensor noise(const TensorSpec& spec, const Options& options) {
  Tensor images{{options.batch}, {}};
  for (std::size_t axis = 1; axis < spec.shape.size(); ++axis) {
    const auto* size = std::get_if<std::int64_t>(&spec.shape[axis]);
    images.shape.push_back(size ? *size : -1);
  }
  if (spec.shape.empty() || spec.dtype != "float32" || !spec.fits(images.shape)) {
    throw UsageError("E0201", "the input does not fit the model",
                     "expected " + spec.text() + ", given float32 " + text(images.shape));
  }
  std::mt19937_64 random(static_cast<std::uint64_t>(options.seed));
  std::normal_distribution<float> normal;
  images.values.resize(count(images.shape));
  for (float& value : images.values) value = normal(random);
  return images;
}

Loaded load(const Json& subject, const Options& options) {
  LoadOptions wanted;
  wanted.threads = options.threads;
  const auto text = [&subject](const char* key) { return subject.at(key).get<std::string>(); };
  const auto start = std::chrono::steady_clock::now();
  Loaded loaded{open_session(text("path"), text("runtime"), text("provider"), wanted), {}, 0};
  const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
  loaded.load_ms = taken.count();
  if (loaded.session->output().dtype != "float32") {  // outputs are copied as such
    throw UnsupportedError("E0607", "this library runs models from float32 to float32",
                           loaded.session->output().text());
  }
  loaded.images = noise(loaded.session->input(), options);
  return loaded;
}

// An output is copied, as whoever calls an engine gets it.
void run(const Loaded& loaded) {
  Tensor output;
  loaded.session->run(loaded.images.values.data(), loaded.images.shape,
                      [&output](const float* values, const Shape& shape) {
                        output = {shape, {values, values + count(shape)}};
                      });
}

Json measured(const Json& subjects, const Options& options) {
  std::map<std::string, Loaded> loaded;
  Calls calls;
  std::vector<Json> order(subjects.begin(), subjects.end());
  // Whoever loads first grows the heap for the others.
  std::shuffle(order.begin(), order.end(),
               std::mt19937_64(static_cast<std::uint64_t>(options.seed)));
  for (const Json& subject : order) {
    const auto label = subject.at("label").get<std::string>();
    const Loaded& each = loaded[label] = load(subject, options);
    calls[label] = [&each] { run(each); };
  }
  const auto samples = measure(calls, options);
  Json models = Json::object();
  for (const Json& subject : order) {
    const auto label = subject.at("label").get<std::string>();
    models[label] = ModelRun{loaded[label].load_ms, loaded[label].session->runtime(),
                             subject.at("provider").get<std::string>(), samples.at(label)};
  }
  return {{"models", models}, {"floor_ns", overhead_ns()}};
}

Json memory_of(const Json& subject, const Options& options) {
  const Json baseline = peak_rss();
  const Loaded loaded = load(subject, options);
  for (int i = 0; i < kMemoryCalls; ++i) {
    run(loaded);
  }
  return {{"peak", peak_rss()}, {"baseline", baseline}};
}

Shape image_shape(const TensorSpec& spec) {
  Shape shape;
  for (std::size_t axis = 1; axis < spec.shape.size(); ++axis) {
    const auto* size = std::get_if<std::int64_t>(&spec.shape[axis]);
    shape.push_back(size ? *size : -1);
  }
  return shape;
}

std::vector<Subject> subjects_of(const std::string& label, const Manifest& manifest) {
  const auto subject = [&manifest](const std::string& name, const std::string& model,
                                   const std::string& precision) {
    return Subject{name,
                   fs::path(model).filename().string(),
                   manifest.provider,
                   manifest.input.name,
                   manifest.files.at(model),
                   manifest.runtime,
                   precision,
                   image_shape(manifest.input)};
  };
  std::vector<Subject> subjects;
  if (manifest.runtime != "tensorrt") {
    subjects.push_back(subject(kReference, manifest.reference, "fp32"));
  }
  subjects.push_back(subject(label, manifest.model, manifest.precision));
  if (subjects.front().label == label && subjects.size() > 1) {
    throw UsageError("E0264", "a benchmark needs models with different labels",
                     shown(Json({label, label})));
  }
  return subjects;
}

void require_utf8(const std::string& path) {
  if (decode_utf8(path)) return;
  throw UsageError("E0278", "the bundle's path is not UTF-8, which a result is written in", "", "",
                   "rename it");
}

// The machine, and the GPU where that computes.
Json host_of(const Manifest& manifest) {
  Json host = describe_host();
  if (manifest.provider.compare(0, 4, "CUDA") == 0) {
    const Gpu& gpu = Cuda::get().gpu();
    host["gpu"] = {{"name", gpu.name}, {"compute_capability", gpu.compute_capability}};
  }
  return host;
}

Json request_of(const char* job, const Json& subjects, const Options& options) {
  return {{"job", job}, {"subjects", subjects}, {"options", options}};
}

}  // namespace

Json work(const Json& request) {
  const auto options = request.at("options").get<Options>();
  const Json& subjects = request.at("subjects");
  if (request.at("job") == "memory") return memory_of(subjects.at(0), options);
  return measured(subjects, options);
}

Json measure_bundle(const fs::path& bundle, const Options& options,
                    const std::function<void(const std::string&)>& report) {
  std::error_code ignored;
  const fs::path whole = fs::canonical(bundle, ignored);
  const std::string label = (ignored ? bundle : whole).filename().string();
  require_utf8(bundle.string());
  require_utf8(label);
  Recording recording;
  recording.options = options;
  recording.dropped_variables = drop_variables();
  report("the golden sample of " + label);
  LoadOptions wanted;
  wanted.threads = options.threads;
  const Manifest manifest = Engine::load(bundle, wanted).manifest();
  recording.subjects = subjects_of(label, manifest);
  recording.host = host_of(manifest);
  Json asked = Json::array();
  for (const Subject& each : recording.subjects) {
    const fs::path& name = each.label == label ? manifest.model : manifest.reference;
    asked.push_back({{"label", each.label},
                     {"path", (bundle / name).string()},
                     {"runtime", each.runtime},
                     {"provider", each.provider}});
  }
  Options part = options;
  part.duration_s = options.duration_s / options.processes;
  const double timeout_s = options.timeout_s + static_cast<double>(asked.size()) * planned_s(part);
  const LoadSnapshot before = load_snapshot();
  for (int index = 0; index < options.processes; ++index) {
    report("process " + std::to_string(index + 1) + " of " + std::to_string(options.processes));
    part.seed = options.seed + index;
    const Json run = ask(request_of("measure", asked, part).dump(), timeout_s);
    recording.runs.push_back({run.at("models"), run.at("floor_ns").get<double>()});
  }
  recording.load = load_between(before, load_snapshot());
  report("peak memory: one process a model");
  for (const Json& subject : asked) {
    const Json one = Json::array({subject});
    const auto name = subject.at("label").get<std::string>();
    recording.memory[name] = ask(request_of("memory", one, options).dump(), timeout_s);
  }
  return evaluate(recording);
}

}  // namespace convexport::bench
