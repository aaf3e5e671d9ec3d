// JPEG: the markers before the pixels, which Pillow reads itself, and the pixels by libjpeg-turbo.
#include <csetjmp>
#include <cstdio>  // jpeglib.h needs FILE
#include <cstring>

#include <jpeglib.h>

#include "bytes.hpp"
#include "image_files.hpp"

namespace convexport {
namespace {

constexpr unsigned kScan = 0xda, kTables = 0xdb, kComment = 0xfe, kApp0 = 0xe0, kApp1 = 0xe1,
                   kApp14 = 0xee;

// Whether what follows a marker begins with its own length.
bool has_body(unsigned marker) {
  const bool frame = marker >= 0xc0 && marker <= 0xcf && marker != 0xc8;
  return frame || (marker >= 0xda && marker <= 0xef) || marker == kComment;
}

bool is_frame(unsigned marker) {
  return marker == 0xde ||
         (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc);
}

// Whether the quantization tables are whole.
bool are_tables(const std::string& body) {
  for (std::size_t at = 0; at < body.size();) {
    at += byte_at(body, at) < 16 ? 65 : 129;
    if (at > body.size()) return false;
  }
  return true;
}

// Whether a frame is one of 8 bits and of 1, 3 or 4 layers; its size goes into the header.
bool read_frame(const std::string& body, ImageHeader& header) {
  if (body.size() < 6 || byte_at(body, 0) != 8) return false;
  const unsigned layers = byte_at(body, 5);
  if ((layers != 1 && layers != 3 && layers != 4) || (body.size() - 6) % 3 != 0) return false;
  header.height = number(body, 1, 2);
  header.width = number(body, 3, 2);
  return true;
}

// Whether what these markers tell is there: Pillow looks at it.
bool is_told(unsigned marker, const std::string& body) {
  const bool jfif = marker == kApp0 && body.compare(0, 4, "JFIF") == 0;
  const bool adobe = marker == kApp14 && body.compare(0, 5, "Adobe") == 0;
  return !(jfif || adobe) || body.size() >= 7;
}

void read_app1(const std::string& body, ImageHeader& header) {
  const std::string exif("Exif\0\0", 6), xmp("http://ns.adobe.com/xap/1.0/\0", 29);
  if (body.compare(0, exif.size(), exif) == 0) {
    header.exif = header.exif ? *header.exif + body.substr(exif.size()) : body;
  } else if (body.compare(0, xmp.size(), xmp) == 0) {
    header.xmp = body.substr(xmp.size());
  }
}

// libjpeg's way out of an error.
struct Failure {
  jpeg_error_mgr manager;
  std::jmp_buf place;
};

[[noreturn]] void leave(j_common_ptr info) {
  std::longjmp(reinterpret_cast<Failure*>(info->err)->place, 1);
}

void say_nothing(j_common_ptr) {}
void begin(j_decompress_ptr) {}
// All bytes were there from the start: who asks for more has a file that is cut.
boolean no_more(j_decompress_ptr) { return FALSE; }
void skip(j_decompress_ptr info, long size) {
  jpeg_source_mgr& source = *info->src;
  if (size <= 0) return;
  const auto skipped = std::min(static_cast<std::size_t>(size), source.bytes_in_buffer);
  source.next_input_byte += skipped;
  source.bytes_in_buffer -= skipped;
}

struct Decoder {
  jpeg_decompress_struct info;
  jpeg_source_mgr source;
  Failure failure;

  Decoder() : info{}, source{}, failure{} {}
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() { jpeg_destroy_decompress(&info); }
};

void attach(Decoder& decoder, const std::string& file) {
  decoder.info.err = jpeg_std_error(&decoder.failure.manager);
  decoder.failure.manager.error_exit = leave;
  decoder.failure.manager.output_message = say_nothing;
  decoder.source.init_source = begin;
  decoder.source.fill_input_buffer = no_more;
  decoder.source.skip_input_data = skip;
  decoder.source.resync_to_restart = jpeg_resync_to_restart;
  decoder.source.term_source = begin;
  decoder.source.next_input_byte = reinterpret_cast<const JOCTET*>(file.data());
  decoder.source.bytes_in_buffer = file.size();
}

// What went wrong, or nullptr. No object with a destructor may live here: longjmp passes it by.
const char* decode_into(Decoder& decoder, const ImageHeader& header, Image& image) {
  jpeg_decompress_struct& info = decoder.info;
  if (setjmp(decoder.failure.place)) return "broken data stream";
  jpeg_create_decompress(&info);
  info.src = &decoder.source;
  if (jpeg_read_header(&info, TRUE) == JPEG_SUSPENDED) return "image file is truncated";
  // The header's size was held against the limit.
  if (info.image_width != header.width || info.image_height != header.height) {
    return "its size is given twice";
  }
  info.out_color_space = info.num_components == 1   ? JCS_GRAYSCALE
                         : info.num_components == 3 ? JCS_RGB
                                                    : JCS_CMYK;
  if (!jpeg_start_decompress(&info)) return "image file is truncated";
  image.width = info.output_width;
  image.height = info.output_height;
  image.channels = info.output_components;
  const std::size_t row = std::size_t{info.output_width} * static_cast<std::size_t>(image.channels);
  image.pixels.resize(row * info.output_height);
  while (info.output_scanline < info.output_height) {
    JSAMPROW target = &image.pixels[row * info.output_scanline];
    if (jpeg_read_scanlines(&info, &target, 1) != 1) return "image file is truncated";
  }
  jpeg_finish_decompress(&info);  // the end may be missing, but not be broken
  return nullptr;
}

// a * b / 255, rounded, of bytes.
unsigned product(unsigned a, unsigned b) {
  const unsigned scaled = a * b + 128;
  return ((scaled >> 8) + scaled) >> 8;
}

// Adobe's files, and there are no others, store CMYK inverted.
void cmyk_to_rgb(Image& image) {
  const std::size_t pixels = image.pixels.size() / 4;
  for (std::size_t i = 0; i < pixels; ++i) {
    const unsigned key = image.pixels[4 * i + 3];
    for (std::size_t c = 0; c < 3; ++c) {
      const unsigned ink = 255U - image.pixels[4 * i + c];
      image.pixels[3 * i + c] = static_cast<std::uint8_t>(key - product(ink, key));
    }
  }
  image.pixels.resize(3 * pixels);
  image.channels = 3;
}

}  // namespace

bool is_jpeg(const std::string& file) { return file.compare(0, 3, "\xff\xd8\xff") == 0; }

ImageHeader jpeg_header(const std::string& file, const std::string& name) {
  ImageHeader header;
  Cursor cursor(file, 2);
  bool ended = false;
  while (const auto byte = cursor.take_number(1)) {
    if (*byte != 0xff) continue;  // junk between segments
    auto marker = cursor.take_number(1);
    while (marker && *marker == 0xff) marker = cursor.take_number(1);
    if (!marker) break;
    if (*marker == 0) continue;
    if (*marker < 0xc0 || *marker == 0xff) throw not_an_image(file, name);
    if (!has_body(*marker)) continue;
    const auto length = cursor.take_number(2);
    if (!length) throw not_an_image(file, name);
    const auto body = cursor.take(*length > 2 ? *length - 2 : 0);
    if (!body) throw broken_image("Truncated File Read", name);
    const bool fine = is_frame(*marker)    ? read_frame(*body, header)
                      : *marker == kTables ? are_tables(*body)
                                           : is_told(*marker, *body);
    if (!fine) throw not_an_image(file, name);
    if (*marker == kApp1) read_app1(*body, header);
    ended = *marker == kScan;
    if (ended) break;
  }
  if (header.width < 1 || header.height < 1) throw not_an_image(file, name);
  if (!ended) throw broken_image("cannot load this image", name);
  return header;
}

Image jpeg_pixels(const std::string& file, const ImageHeader& header, const std::string& name) {
  Decoder decoder;
  Image image;
  attach(decoder, file);
  const char* problem = decode_into(decoder, header, image);
  if (problem) throw broken_image(problem, name);
  if (image.channels == 4) cmyk_to_rgb(image);
  return image;
}

}  // namespace convexport
