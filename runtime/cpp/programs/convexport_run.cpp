// Classify images with a bundle: convexport run, without Python.
#include <convexport/engine.hpp>

#include <cstdio>

#include "terminal.hpp"

namespace {

void print(const std::string& image, const convexport::Classified& answer) {
  std::printf("%s\n", tame(image).c_str());
  for (const auto& [label, probability] : answer) {
    std::printf("  %5.1f%%  %s\n", 100.0 * static_cast<double>(probability), tame(label).c_str());
  }
}

void run(const std::string& bundle, const std::vector<std::string>& images, std::size_t top,
         const convexport::LoadOptions& options) {
  const auto engine = convexport::Engine::load(bundle, options);
  for (const std::string& warning : engine.warnings()) {
    std::cerr << "warning: " << tame(warning) << '\n';
  }
  if (engine.manifest().random_weights) {
    std::cerr << "warning: the weights are random: these answers mean nothing\n";
  }
  for (const std::string& image : images) print(image, engine.classify(image, top));
}

int command(int count, char** arguments) {
  std::string bundle;
  std::vector<std::string> images;
  std::size_t top = 5;
  convexport::LoadOptions options;
  CLI::App app{"Classify images with a bundle of convexport"};
  app.add_option("BUNDLE", bundle, "The directory that convexport build wrote")->required();
  app.add_option("IMAGE", images, "JPEG or PNG files")->required();
  app.add_option("--top", top, "Labels an image")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", options.threads, "0: the runtime chooses")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  return guarded(app, count, arguments, [&] {
    run(bundle, images, top, options);
    return 0;
  });
}

}  // namespace

int main(int count, char** arguments) { return last_resort(command, count, arguments); }
