#include "files.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

namespace convexport {
namespace {

// An open file that closes itself.
class Handle {
 public:
  explicit Handle(const std::filesystem::path& path)
      : handle_(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (handle_ >= 0) ::close(handle_);
  }

  // What was opened; none if nothing was.
  std::optional<struct stat> status() const {
    struct stat found{};
    if (handle_ < 0 || ::fstat(handle_, &found) != 0) return std::nullopt;
    return found;
  }

  // How many bytes were read; 0 at the end, -1 where errno says why.
  ssize_t read(char* into, std::size_t size) const {
    ssize_t got = 0;
    do {
      got = handle_ < 0 ? -1 : ::read(handle_, into, size);
    } while (got < 0 && handle_ >= 0 && errno == EINTR);
    return got;
  }

 private:
  int handle_;
};

constexpr std::size_t kBlock = std::size_t{1} << 20;

using Digest = std::array<unsigned char, EVP_MAX_MD_SIZE>;

std::string hex(const Digest& digest, unsigned size) {
  std::string text;
  for (unsigned i = 0; i < size; ++i) {
    constexpr const char* kHex = "0123456789abcdef";
    text += {kHex[digest[i] >> 4], kHex[digest[i] & 15]};
  }
  return text;
}

}  // namespace

std::optional<std::string> read_file(const std::filesystem::path& path, std::size_t limit,
                                     std::string& reason,
                                     const std::function<void(const struct stat&)>& look) {
  const Handle file(path);
  if (const auto status = file.status(); look && status) look(*status);
  std::string bytes;
  for (;;) {
    const std::size_t had = bytes.size();
    bytes.resize(had + kBlock);
    const ssize_t got = file.read(&bytes[had], kBlock);
    if (got < 0) {
      reason = std::strerror(errno);
      return std::nullopt;
    }
    bytes.resize(had + static_cast<std::size_t>(got));
    if (bytes.size() > limit) {
      reason = "larger than " + std::to_string(limit) + " bytes";
      return std::nullopt;
    }
    if (got == 0) return bytes;
  }
}

std::optional<std::string> sha256_of(const std::filesystem::path& path) {
  const Handle file(path);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        EVP_MD_CTX_free);
  bool fine = context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  std::vector<char> block(kBlock);
  for (ssize_t got = 1; fine && got > 0;) {
    got = file.read(block.data(), block.size());
    fine = got >= 0 &&
           EVP_DigestUpdate(context.get(), block.data(), static_cast<std::size_t>(got)) == 1;
  }
  Digest digest{};
  unsigned size = 0;
  if (!fine || EVP_DigestFinal_ex(context.get(), digest.data(), &size) != 1) return std::nullopt;
  return hex(digest, size);
}

std::optional<std::string> sha256_of_bytes(const std::string& bytes) {
  Digest digest{};
  unsigned size = 0;
  const bool fine =
      EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr) == 1;
  return fine ? std::optional(hex(digest, size)) : std::nullopt;
}

}  // namespace convexport
