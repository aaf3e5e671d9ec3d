#include "samples.hpp"

#include <openssl/evp.h>
#include <zlib.h>

#include <stdexcept>

namespace convexport::bench {
namespace {

std::string pack(const Nanoseconds& values) {
  std::string bytes;
  for (const std::int64_t value : values) {
    for (int shift = 0; shift < 64; shift += 8) {
      bytes.push_back(static_cast<char>(static_cast<std::uint64_t>(value) >> shift & 0xff));
    }
  }
  uLongf size = compressBound(static_cast<uLong>(bytes.size()));
  std::vector<Bytef> packed(size);
  const auto* from = reinterpret_cast<const Bytef*>(bytes.data());
  if (compress2(packed.data(), &size, from, static_cast<uLong>(bytes.size()), 6) != Z_OK) {
    throw std::runtime_error("zlib cannot pack the samples");
  }
  std::string text(4 * ((size + 2) / 3) + 1, '\0');  // libcrypto ends it with a zero
  const int written = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), packed.data(),
                                      static_cast<int>(size));
  text.resize(static_cast<std::size_t>(written));
  return text;
}

Json with_arrays(const ModelRun& run, const Json& ns, const Json& sizes, const Json& starts) {
  return {{"load_ms", run.load_ms},
          {"runtime", run.runtime},
          {"provider", run.provider},
          {"samples",
           {{"ns", ns},
            {"block_sizes", sizes},
            {"block_starts_ns", starts},
            {"first_ns", run.samples.first_ns},
            {"warmup", run.samples.warmup}}}};
}

}  // namespace

void to_json(Json& data, const Warmup& warmup) {
  data = {{"seconds", warmup.seconds},
          {"windows", warmup.windows},
          {"window_s", warmup.window_s},
          {"settled", warmup.settled}};
}

void from_json(const Json& data, Warmup& warmup) {
  data.at("seconds").get_to(warmup.seconds);
  data.at("windows").get_to(warmup.windows);
  data.at("window_s").get_to(warmup.window_s);
  data.at("settled").get_to(warmup.settled);
}

void to_json(Json& data, const ModelRun& run) {
  const Samples& all = run.samples;
  data = with_arrays(run, all.ns, all.block_sizes, all.block_starts_ns);
}

void from_json(const Json& data, ModelRun& run) {
  data.at("load_ms").get_to(run.load_ms);
  data.at("runtime").get_to(run.runtime);
  data.at("provider").get_to(run.provider);
  const Json& samples = data.at("samples");
  samples.at("ns").get_to(run.samples.ns);
  samples.at("block_sizes").get_to(run.samples.block_sizes);
  samples.at("block_starts_ns").get_to(run.samples.block_starts_ns);
  samples.at("first_ns").get_to(run.samples.first_ns);
  samples.at("warmup").get_to(run.samples.warmup);
}

Json recorded(const ModelRun& run) {
  const Samples& all = run.samples;
  return with_arrays(run, pack(all.ns), pack(all.block_sizes), pack(all.block_starts_ns));
}

}  // namespace convexport::bench
