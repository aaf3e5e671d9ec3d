#include "child.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "convexport/errors.hpp"

extern char** environ;

namespace convexport::bench {
namespace {

constexpr const char* kOdd[] = {"DNNL_",   "GOMP_",     "KMP_",      "MALLOC_", "MKL_", "OMP_",
                                "ONEDNN_", "OPENBLAS_", "OPENVINO_", "ORT_",    "OV_",  "TBB_"};

// A running worker, and the end of the pipe that its answer comes through.
class Child {
 public:
  explicit Child(const std::string& request) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) throw failed("pipe", errno);
    out_ = ends[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::string program = "/proc/self/exe", option = "--worker", argument = request;
    std::array<char*, 4> words = {program.data(), option.data(), argument.data(), nullptr};
    const int code = posix_spawn(&pid_, program.c_str(), &actions, nullptr, words.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (code != 0) {
      close(out_);
      throw failed("posix_spawn", code);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    close(out_);
    if (pid_ < 0) return;
    kill(pid_, SIGKILL);
    (void)wait();
  }

  // What it writes until it closes its end; false once the time is over.
  bool read_all(std::string& text, double timeout_s) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
    std::array<char, 65536> block{};
    for (;;) {
      const std::chrono::duration<double, std::milli> left = end - std::chrono::steady_clock::now();
      pollfd waiting{out_, POLLIN, 0};
      const int ready = poll(&waiting, 1, std::max(0, static_cast<int>(left.count())));
      if (ready == 0) return false;
      if (ready < 0 && errno == EINTR) continue;
      const ssize_t got = ::read(out_, block.data(), block.size());
      if (got <= 0) return true;
      text.append(block.data(), static_cast<std::size_t>(got));
    }
  }

  // How it ended, as waitpid tells it.
  int wait() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

 private:
  static MachineError failed(const char* what, int code) {
    return {"E0410", std::string("no measuring process can be started: ") + what, "",
            std::strerror(code)};
  }

  pid_t pid_ = -1;
  int out_ = -1;
};

Json told(const Error& error) {
  return {{"code", error.code()},
          {"problem", error.problem()},
          {"where", error.where()},
          {"why", error.why()},
          {"hint", error.hint()}};
}

}  // namespace

Json ask(const std::string& request, double timeout_s) {
  Child child(request);
  std::string text;
  if (!child.read_all(text, timeout_s)) {
    throw MachineError("E0411",
                       "a measuring process was stopped: it took longer than " +
                           std::to_string(static_cast<long>(timeout_s)) + " s",
                       "", "", "allow more time");
  }
  const int status = child.wait();
  if (status != 0) {
    const std::string ending = WIFSIGNALED(status)
                                   ? "signal " + std::to_string(WTERMSIG(status))
                                   : "exit code " + std::to_string(WEXITSTATUS(status));
    throw MachineError("E0410", "a measuring process crashed (" + ending + ")", "", "",
                       "the same model may crash your application: try one model, one thread");
  }
  const Json data = Json::parse(text, nullptr, false);
  if (data.is_object() && data.contains("error")) {
    const Json& error = data["error"];
    const auto part = [&error](const char* name) { return error.at(name).get<std::string>(); };
    throw Error(part("code"), part("problem"), part("where"), part("why"), part("hint"));
  }
  if (!data.is_object()) throw MachineError("E0462", "a measuring process gave no answer");
  return data.at("ok");
}

int answer(Json (*job)(const Json& request), const std::string& request) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // nobody wants the numbers of one whose parent is gone
  const int out = dup(STDOUT_FILENO);
  dup2(STDERR_FILENO, STDOUT_FILENO);
  Json data;
  try {
    data = {{"ok", job(Json::parse(request))}};
  } catch (const Error& error) {
    data = {{"error", told(error)}};
  }
  const std::string text = data.dump(-1, ' ', false, Json::error_handler_t::replace);
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t put = ::write(out, text.data() + at, text.size() - at);
    if (put < 0 && errno != EINTR) return 1;
    at += static_cast<std::size_t>(std::max<ssize_t>(put, 0));
  }
  return 0;
}

std::vector<std::string> drop_variables() {
  std::vector<std::string> dropped;
  for (const char* const* each = environ; *each; ++each) {
    const std::string text = *each;
    for (const char* odd : kOdd) {
      if (text.compare(0, std::strlen(odd), odd) == 0) {
        dropped.push_back(text.substr(0, text.find('=')));
      }
    }
  }
  for (const std::string& name : dropped) ::unsetenv(name.c_str());
  std::sort(dropped.begin(), dropped.end());
  return dropped;
}

}  // namespace convexport::bench
