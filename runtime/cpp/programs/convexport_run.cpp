// Classify images with a bundle: convexport run, without Python.
#include <convexport/engine.hpp>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

namespace {

// Labels and names come from strangers: nothing in them may steer the terminal. Control
// characters are those of ASCII, and those that UTF-8 writes as C2 80 to C2 9F.
std::string tame(std::string text, bool lines = false) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const auto next = at + 1 < text.size() ? static_cast<unsigned char>(text[at + 1]) : 0;
    if (byte == 0xc2 && next >= 0x80 && next < 0xa0) {
      text.replace(at, 2, "?");
    } else if ((byte < 0x20 && !(lines && byte == '\n')) || byte == 0x7f) {
      text[at] = '?';
    }
  }
  return text;
}

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

}  // namespace

int main(int count, char** arguments) {
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
  try {
    app.parse(count, arguments);
    run(bundle, images, top, options);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : 2;
  } catch (const convexport::Error& error) {
    std::cerr << tame(error.what(), true) << '\n';
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << "a bug of convexport: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
