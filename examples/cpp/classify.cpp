// The three most probable labels of an image; then a batch of two, by hand.
#include <convexport/engine.hpp>

#include <cstdio>

int main(int count, char** arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: classify BUNDLE IMAGE\n");
    return 2;
  }
  try {
    const auto engine = convexport::Engine::load(arguments[1]);
    for (const auto& [label, probability] : engine.classify(arguments[2], 3)) {
      std::printf("%s %.4f\n", label.c_str(), static_cast<double>(probability));
    }
    // The same by hand: an image as a 1xCxHxW tensor, and two of them as one batch.
    auto batch = convexport::preprocess(arguments[2], engine.manifest().preprocess);
    const auto once = batch.values;
    batch.values.insert(batch.values.end(), once.begin(), once.end());
    batch.shape[0] = 2;
    const auto logits = engine.run(batch);
    std::printf("logits %s\n", convexport::text(logits.shape).c_str());
  } catch (const convexport::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  }
  return 0;
}
