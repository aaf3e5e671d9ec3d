// What a program prints comes from strangers: labels, names, messages of libraries.
#pragma once

#include <CLI/CLI.hpp>
#include <convexport/errors.hpp>
#include <cstdio>
#include <iostream>
#include <string>

// Nothing in a text may steer the terminal. Control characters are those of ASCII, and those that
// UTF-8 writes as C2 80 to C2 9F.
inline std::string tame(std::string text, bool lines = false) {
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

// A full disk may be met by any write, and by what is still in buffers only here.
inline void flush_output() {
  if (std::cout.flush() && std::fflush(stdout) == 0 && !std::ferror(stdout)) return;
  throw convexport::Error("E0801", "cannot write all of the answer", "standard output", "",
                          "free some space, or write to another place");
}

// For a main, out of which nothing may be thrown.
inline int last_resort(int (*command)(int, char**), int count, char** words) noexcept {
  try {
    return command(count, words);
  } catch (...) {  // not even what went wrong can be said
    return 1;
  }
}

// Parse the words, do the work; the exit code of the command line for what it throws.
template <typename Work>
int guarded(CLI::App& app, int count, char** words, Work work) {
  try {
    app.parse(count, words);
    const int code = work();
    flush_output();
    return code;
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
}
