// PNG: the chunks around the pixels, which Pillow reads itself, and the pixels by libpng.
#define ZLIB_CONST  // what is inflated is not written to
#include <png.h>
#include <zlib.h>

#include <array>
#include <cctype>
#include <cstring>
#include <memory>

#include "bytes.hpp"
#include "image_files.hpp"

namespace convexport {
namespace {

constexpr std::size_t kSignature = 8;
// As Pillow limits what a text, and what all of them, are inflated to.
constexpr std::size_t kShortText = std::size_t{1} << 12, kLongestText = std::size_t{1} << 20;
constexpr std::size_t kMostText = 64 * kLongestText;
constexpr const char *kProfile = "Raw profile type exif", *kXmp = "XML:com.adobe.xmp";

bool is_name(const std::string& bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](unsigned char byte) { return std::isalnum(byte) || byte == '_'; });
}

// Whether depth and colour go together: PNG specification, table 11.1.
bool is_kind(unsigned depth, unsigned colour) {
  if (colour == 0) return depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16;
  if (colour == 3) return depth == 1 || depth == 2 || depth == 4 || depth == 8;
  return (colour == 2 || colour == 4 || colour == 6) && (depth == 8 || depth == 16);
}

// What was packed, as far as it goes; nothing where it is broken.
std::optional<std::string> inflated(const std::string& data, const std::string& name) {
  z_stream stream{};
  stream.next_in = reinterpret_cast<const Bytef*>(data.data());
  stream.avail_in = static_cast<uInt>(data.size());
  if (inflateInit(&stream) != Z_OK) return std::nullopt;
  const std::unique_ptr<z_stream, decltype(&inflateEnd)> end(&stream, inflateEnd);
  std::string text;
  int state = Z_OK;
  while (state == Z_OK && text.size() < kLongestText) {
    const std::size_t had = text.size();
    text.resize(std::clamp(2 * had, kShortText, kLongestText));
    stream.next_out = reinterpret_cast<Bytef*>(&text[had]);
    stream.avail_out = static_cast<uInt>(text.size() - had);
    state = inflate(&stream, Z_SYNC_FLUSH);
    text.resize(text.size() - stream.avail_out);
  }
  if (state == Z_OK && stream.avail_in > 0) throw broken_image("too long a text", name);
  const bool fine = state == Z_OK || state == Z_STREAM_END || state == Z_BUF_ERROR;
  return fine ? std::optional(std::move(text)) : std::nullopt;
}

// What stands behind a text's keyword; nothing where it is broken.
std::optional<std::string> text_of(const std::string& kind, const std::string& body,
                                   const std::string& name) {
  if (kind == "tEXt") return body;
  if (kind == "zTXt") return inflated(body.substr(body.empty() ? 0 : 1), name).value_or("");
  // Compression (flag and method), language, translated keyword, text.
  const std::size_t language = body.find('\0', 2);
  if (body.size() < 2 || language == std::string::npos) return std::nullopt;
  const std::size_t translated = body.find('\0', language + 1);
  if (translated == std::string::npos) return std::nullopt;
  std::string text = body.substr(translated + 1);
  if (body[0] == 0) return text;
  return body[1] == 0 ? inflated(text, name) : std::nullopt;
}

// Note what a chunk tells, and how long all texts are.
void read_chunk(const std::string& kind, const std::string& body, const std::string& name,
                ImageHeader& header, std::size_t& texts) {
  if (kind == "eXIf") header.exif = body;
  if (kind != "tEXt" && kind != "zTXt" && kind != "iTXt") return;
  const std::size_t end = std::min(body.find('\0'), body.size());
  const std::string key = body.substr(0, end);
  auto text = text_of(kind, body.substr(std::min(end + 1, body.size())), name);
  if (!text) return;
  texts += text->size();
  if (texts > kMostText) throw broken_image("too long texts", name);
  if (key == kProfile)
    header.profile = std::move(*text);
  else if (key == kXmp)
    header.xmp = std::move(*text);
}

// Whether a header makes an image; its size is noted.
bool read_ihdr(const std::string& body, ImageHeader& header) {
  header.width = number(body, 0, 4);
  header.height = number(body, 4, 4);
  return is_kind(byte_at(body, 8), byte_at(body, 9)) && byte_at(body, 11) == 0;
}

// libpng's source, and its way out of an error.
struct Source {
  const std::string& file;
  std::size_t at;
};

void read(png_structp png, png_bytep into, size_t size) {
  auto& source = *static_cast<Source*>(png_get_io_ptr(png));
  if (source.file.size() - source.at < size) png_error(png, "image file is truncated");
  std::memcpy(into, source.file.data() + source.at, size);
  source.at += size;
}

[[noreturn]] void leave(png_structp png, png_const_charp) { png_longjmp(png, 1); }
void no_warning(png_structp, png_const_charp) {}

// libpng's two structures; both may be missing.
struct Reader {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, leave, no_warning);
  png_infop info = png ? png_create_info_struct(png) : nullptr;
  Reader() = default;
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
};

// The rows as they are in the file, and what they mean.
struct Raw {
  ImageHeader expected;
  png_uint_32 width = 0, height = 0;
  int depth = 0, colour = 0;
  std::size_t row = 0;
  std::vector<png_byte> bytes;
  std::vector<png_bytep> rows;
  std::array<png_color, 256> palette{};
};

// Whether all pixels came. No object with a destructor may live here: longjmp passes it by.
bool read_rows(png_structp png, png_infop info, Source& source, Raw& raw) {
  if (setjmp(png_jmpbuf(png))) return false;
  png_set_read_fn(png, &source, read);
  // Pillow does not look at the checksums of pixels; those before them were looked at.
  png_set_crc_action(png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
  png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_read_info(png, info);
  png_get_IHDR(png, info, &raw.width, &raw.height, &raw.depth, &raw.colour, nullptr, nullptr,
               nullptr);
  // The header's size was held against the limit.
  if (raw.width != raw.expected.width || raw.height != raw.expected.height) return false;
  png_colorp colours = nullptr;
  int count = 0;
  if (png_get_PLTE(png, info, &colours, &count)) {
    std::copy(colours, colours + count, raw.palette.begin());
  }
  png_set_packing(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  raw.row = png_get_rowbytes(png, info);
  raw.bytes.resize(raw.row * raw.height);
  for (png_uint_32 y = 0; y < raw.height; ++y) raw.rows.push_back(&raw.bytes[raw.row * y]);
  png_read_image(png, raw.rows.data());
  return true;
}

// 8 bits of a grey value that has 1, 2, 4, 8 or 16; of other 16-bit values the high byte is kept.
std::uint8_t grey(const png_byte* sample, int depth) {
  if (depth == 16) return static_cast<std::uint8_t>(((sample[0] << 8 | sample[1]) + 128) / 257);
  return static_cast<std::uint8_t>(depth == 8 ? *sample : *sample * (255 / ((1 << depth) - 1)));
}

Image image_of(const Raw& raw) {
  Image image;
  const bool colours = (raw.colour & PNG_COLOR_MASK_COLOR) != 0;
  const bool palette = raw.colour == PNG_COLOR_TYPE_PALETTE;
  image.width = raw.width;
  image.height = raw.height;
  image.channels = colours ? 3 : 1;
  const std::size_t wide = raw.depth == 16 ? 2 : 1;
  const std::size_t alpha = (raw.colour & PNG_COLOR_MASK_ALPHA) ? 1 : 0;
  const std::size_t step = wide * ((colours && !palette ? 3 : 1) + alpha);
  const std::size_t pixels = std::size_t{raw.width} * raw.height;
  image.pixels.reserve(pixels * static_cast<std::size_t>(image.channels));
  for (std::size_t i = 0; i < pixels; ++i) {
    const png_byte* sample = raw.bytes.data() + i * step;
    if (palette) {
      const png_color& colour = raw.palette[*sample];
      image.pixels.insert(image.pixels.end(), {colour.red, colour.green, colour.blue});
    } else if (colours) {
      image.pixels.insert(image.pixels.end(), {sample[0], sample[wide], sample[2 * wide]});
    } else {
      image.pixels.push_back(alpha ? *sample : grey(sample, raw.depth));
    }
  }
  return image;
}

}  // namespace

bool is_png(const std::string& file) { return file.compare(0, 8, "\x89PNG\r\n\x1a\n") == 0; }

ImageHeader png_header(const std::string& file, const std::string& name) {
  ImageHeader header;
  Cursor cursor(file, kSignature);
  bool known = false, pixels = false;
  std::size_t texts = 0;
  for (;;) {
    const auto length = cursor.take_number(4);
    const auto kind = cursor.take(4);
    if (!length || !kind || !is_name(*kind)) {
      if (pixels) return header;  // what follows the pixels may be missing
      throw not_an_image(file, name);
    }
    if (*kind == "IEND") break;
    if (*kind == "IDAT" && !known) throw not_an_image(file, name);
    if (*kind == "IDAT" && (header.width < 1 || header.height < 1)) throw not_an_image(file, name);
    const auto body = cursor.take(*length);
    if (!body) {
      // Cut pixels are found when they are read.
      if (*kind == "IDAT") return header;
      throw broken_image("Truncated File Read", name);
    }
    if (*kind == "IHDR" && *length < 13) throw broken_image("Truncated IHDR chunk", name);
    if (*kind == "IHDR" && !pixels) known = read_ihdr(*body, header);
    if (*kind == "IDAT") pixels = true;
    read_chunk(*kind, *body, name, header, texts);
    const auto checksum = cursor.take_number(4);
    if (pixels) continue;
    const auto* start =
        reinterpret_cast<const Bytef*>(file.data()) + cursor.position() - 8 - *length;
    if (!checksum || crc32(0, start, *length + 4) != *checksum) throw not_an_image(file, name);
  }
  if (!known || header.width < 1 || header.height < 1) throw not_an_image(file, name);
  if (!pixels) throw broken_image("cannot load this image", name);
  return header;
}

Image png_pixels(const std::string& file, const ImageHeader& header, const std::string& name) {
  Raw raw;
  raw.expected = header;
  Source source{file, 0};
  const Reader reader;
  const bool whole = reader.info && read_rows(reader.png, reader.info, source, raw);
  if (!whole) throw broken_image("broken data stream or cut", name);
  return image_of(raw);
}

}  // namespace convexport
