// What the tests call: the library's doors, with answers that Python can read.
//   probe load BUNDLE...             a line each: "ok RUNTIME", or the error
//   probe pixels BUNDLE OUT IMAGE... a line each: "ok" or the error; float32 to OUT/0, OUT/1, ...
//   probe run BUNDLE VALUES OUT DIM... one batch of float32, read from VALUES, to OUT
//   probe classify BUNDLE TOP IMAGE  a line each: label, tab, probability
//   probe defect KIND                makes one, which the sanitizers have to see
//   probe failure PROVIDER WORDS     what becomes of ONNX Runtime's words
//   probe spans BUNDLE               what values and memory of the caller's may be
//   probe moved BUNDLE               what a moved engine says, and one that was moved to
//   probe threads BUNDLE VALUES THREADS RUNS DIM...  the same batch in many threads at a time
#include <convexport/engine.hpp>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include "ort_failures.hpp"

namespace {

using convexport::Engine;
using Words = std::vector<std::string>;

// In one line.
std::string flat(std::string text) {
  for (char& byte : text) {
    if (byte == '\n') byte = '\x1f';
  }
  return text;
}

template <typename Action>
void attempt(Action action) {
  try {
    action();
  } catch (const convexport::Error& error) {
    std::printf("%s\n", flat(error.what()).c_str());
  }
}

std::vector<float> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<float> values(bytes.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

void write(const std::string& path, const std::vector<float>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(float)));
}

convexport::Tensor batch(const std::string& path, const Words& dims, std::size_t first) {
  convexport::Tensor tensor{{}, read(path)};
  for (std::size_t i = first; i < dims.size(); ++i) tensor.shape.push_back(std::stoll(dims[i]));
  return tensor;
}

void load(const Words& words) {
  for (const std::string& bundle : words) {
    attempt([&] {
      const Engine engine = Engine::load(bundle);
      std::printf("ok %s\n", engine.runtime().c_str());
    });
  }
}

void pixels(const Words& words) {
  const auto manifest = convexport::read_manifest(words[0]);
  for (std::size_t i = 2; i < words.size(); ++i) {
    attempt([&] {
      write(words[1] + "/" + std::to_string(i - 2),
            convexport::preprocess(words[i], manifest.preprocess).values);
      std::puts("ok");
    });
  }
}

void run(const Words& words) {
  const auto tensor = batch(words[1], words, 3);
  write(words[2], Engine::load(words[0]).run(tensor).values);
}

void classify(const Words& words) {
  const auto engine = Engine::load(words[0]);
  for (const auto& [label, probability] : engine.classify(words[2], std::stoul(words[1]))) {
    std::printf("%s\t%.9g\n", flat(label).c_str(), static_cast<double>(probability));
  }
}

void threads(const Words& words) {
  const auto tensor = batch(words[1], words, 4);
  Engine loaded = Engine::load(words[0]);
  const Engine engine = std::move(loaded);
  const auto expected = engine.run(tensor).values;
  const convexport::Image grey{40, 50, 1, std::vector<std::uint8_t>(2000, 99)};
  const auto answer = engine.classify(grey);
  std::vector<std::thread> all;
  std::vector<int> wrong(std::stoul(words[2]));
  for (int& count : wrong) {
    all.emplace_back([&, runs = std::stoi(words[3])] {
      for (int i = 0; i < runs; ++i) {
        count += engine.run(tensor).values != expected || engine.classify(grey) != answer;
      }
    });
  }
  for (std::thread& each : all) each.join();
  for (const int count : wrong) std::printf("%d\n", count);
}

void failure(const Words& words) {
  convexport::throw_ort_failure(words[1], words[0], "some", "model.onnx");
}

void spans(const Words& words) {
  const Engine engine = Engine::load(words[0]);
  const std::vector<float> values(8, 1);
  std::vector<float> logits(6);
  const convexport::Shape two = {2, 1, 2, 2};
  const auto given = engine.run({values.data(), 8}, two, {logits.data(), 6});
  std::printf("%s %d\n", convexport::text(given).c_str(),
              static_cast<int>(logits == engine.run({two, values}).values));
  attempt([&] { engine.run({values.data(), 7}, two); });
  for (const std::size_t size : {5, 7}) {
    attempt([&] { engine.run({values.data(), 8}, two, {logits.data(), size}); });
  }
}

void moved(const Words& words) {
  Engine one = Engine::load(words[0]), other = Engine::load(words[0]);
  const convexport::Image grey{40, 50, 1, std::vector<std::uint8_t>(2000, 99)};
  other = std::move(one);
  std::printf("%zu %s\n", other.classify(grey).size(), other.runtime().c_str());
  attempt([&] { one.run({{1, 1, 2, 2}, {1, 2, 3, 4}}); });
  attempt([&] { one.classify(grey); });
  attempt([&] { std::printf("%s\n", one.runtime().c_str()); });
}

void defect(const Words& words) {
  const volatile int size = static_cast<int>(words.size());
  std::vector<int> values(1);
  if (words[0] == "overrun") *(values.data() + size) = size;
  if (words[0] == "overflow") values[0] = size + 0x7fffffff;
  if (words[0] == "leak") std::printf("%p\n", static_cast<void*>(new int(size)));
  if (words[0] == "race") {
    std::thread other([&values] { ++values[0]; });
    ++values[0];
    other.join();
  }
  std::printf("%d\n", values[0]);
}

}  // namespace

int main(int count, char** arguments) {
  const std::string door = arguments[1];
  const Words words(arguments + 2, arguments + count);
  attempt([&] {
    if (door == "load") load(words);
    if (door == "pixels") pixels(words);
    if (door == "run") run(words);
    if (door == "classify") classify(words);
    if (door == "threads") threads(words);
    if (door == "failure") failure(words);
    if (door == "spans") spans(words);
    if (door == "moved") moved(words);
    if (door == "defect") defect(words);
  });
}
