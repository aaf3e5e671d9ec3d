// For the project's own figures: what this library costs beside the bare C API of ONNX Runtime.
//   overhead call BUNDLE SECONDS      the median of a call, of both, interleaved; batch 1
//   overhead first BUNDLE             load a bundle and run its golden sample once more
//   overhead preprocess BUNDLE IMAGE  the median of 15 images from file to tensor, in ms
#include <convexport/engine.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "meter.hpp"
#include "ort_library.hpp"
#include "statistics.hpp"

namespace {

using convexport::Engine;
using convexport::bench::Numbers;

const OrtApi& api() { return *convexport::OrtLibrary::get().api; }

void check(OrtStatus* status) {
  if (!status) return;
  (void)std::fprintf(stderr, "%s\n", api().GetErrorMessage(status));
  std::exit(1);
}

// What a program does that knows the model's names and shape; it gives nothing back but outputs.
class Bare {
 public:
  Bare(const std::string& model, std::vector<float>& values, const convexport::Manifest& manifest)
      : input_(manifest.input.name), output_(manifest.output.name) {
    OrtEnv* environment = nullptr;
    OrtSessionOptions* options = nullptr;
    OrtMemoryInfo* memory = nullptr;
    check(api().CreateEnv(ORT_LOGGING_LEVEL_ERROR, "overhead", &environment));
    check(api().CreateSessionOptions(&options));
    check(api().SetIntraOpNumThreads(options, 1));
    check(api().CreateSession(environment, model.c_str(), options, &session_));
    check(api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    convexport::Shape shape = {1};
    for (const std::int64_t size : manifest.preprocess.shape()) shape.push_back(size);
    check(api().CreateTensorWithDataAsOrtValue(memory, values.data(), values.size() * sizeof(float),
                                               shape.data(), shape.size(),
                                               ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value_));
  }

  void run() const {
    const char *input = input_.c_str(), *output = output_.c_str();
    const OrtValue* given = value_;
    OrtValue* result = nullptr;
    check(api().Run(session_, nullptr, &input, &given, 1, &output, 1, &result));
    api().ReleaseValue(result);
  }

 private:
  std::string input_, output_;
  OrtSession* session_ = nullptr;
  OrtValue* value_ = nullptr;
};

void call(const std::string& bundle, double seconds) {
  convexport::LoadOptions options;
  options.threads = 1;
  const Engine engine = Engine::load(bundle, options);
  auto [sample, expected] = convexport::read_golden(bundle, engine.manifest());
  sample.shape[0] = 1;
  sample.values.resize(convexport::count(sample.shape));
  const Bare bare(bundle + "/" + engine.manifest().model, sample.values, engine.manifest());
  convexport::bench::Options measured;
  measured.duration_s = seconds;
  const auto samples = convexport::bench::measure(
      {{"bare", [&] { bare.run(); }}, {"engine", [&] { (void)engine.run(sample); }}}, measured);
  const auto median_us = [&samples](const char* label) {
    const auto& ns = samples.at(label).ns;
    return convexport::bench::median(Numbers(ns.begin(), ns.end())) / 1e3;
  };
  std::printf("%.3f %.3f %zu\n", median_us("bare"), median_us("engine"),
              samples.at("engine").ns.size());
}

void first(const std::string& bundle) {
  const Engine engine = Engine::load(bundle);
  (void)engine.run(convexport::read_golden(bundle, engine.manifest()).first);
}

void preprocess(const std::string& bundle, const std::string& image) {
  const auto spec = convexport::read_manifest(bundle).preprocess;
  Numbers ms;
  for (int i = 0; i < 15; ++i) {
    const auto start = std::chrono::steady_clock::now();
    (void)convexport::preprocess(image, spec);
    const std::chrono::duration<double, std::milli> taken =
        std::chrono::steady_clock::now() - start;
    ms.push_back(taken.count());
  }
  std::printf("%.3f\n", convexport::bench::median(ms));
}

}  // namespace

int main(int count, char** words) {
  const std::string door = count > 1 ? words[1] : "";
  const int needed = door == "first" ? 3 : door == "call" || door == "preprocess" ? 4 : 0;
  if (count != needed) {
    (void)std::fprintf(stderr, "call BUNDLE SECONDS, first BUNDLE, or preprocess BUNDLE IMAGE\n");
    return 2;
  }
  try {
    if (door == "call") call(words[2], std::stod(words[3]));
    if (door == "first") first(words[2]);
    if (door == "preprocess") preprocess(words[2], words[3]);
  } catch (const convexport::Error& error) {
    (void)std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  } catch (const std::exception& error) {
    (void)std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
