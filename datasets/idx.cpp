#include <reel/datasets/idx.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/error.h>
#include <reel/nn/files/file.h>

namespace reel::datasets {
namespace {

using Bytes = std::vector<unsigned char>;

// A file of bytes whose header was checked against its size.
class IdxFile {
 public:
  IdxFile(const std::filesystem::path& path, int rank)
      : where_(path), file_(nn::File::regular(where_, O_RDONLY)) {
    const std::uint64_t size = file_.size();
    const auto header = static_cast<std::uint64_t>(4 + 4 * rank);
    const Bytes magic = read(4);
    if (magic[0] == 0x1F && magic[1] == 0x8B) fail("a gzip file; decompress it with gunzip");
    if (magic[0] != 0 || magic[1] != 0) fail("not an idx file: it does not begin with two zeros");
    if (magic[2] != 8)
      fail(fmt::format("an idx file of type 0x{:02X}, not 0x08 (bytes)", magic[2]));
    if (magic[3] != rank)
      fail(fmt::format("an idx file with {} axes, not {}; {} have {}", magic[3], rank,
                       rank == 1 ? "labels" : "images", rank));
    std::vector<Index> sizes;
    std::uint64_t product = 1;
    for (int axis = 0; axis < rank; ++axis) {
      const Bytes b = read(4);
      const std::uint64_t length = std::uint64_t{b[0]} << 24 | b[1] << 16 | b[2] << 8 | b[3];
      if (length == 0) fail(fmt::format("the size of axis {} is 0", axis));
      if (__builtin_mul_overflow(product, length, &product)) product = UINT64_MAX;
      sizes.push_back(static_cast<Index>(length));
    }
    if (size - header != product)
      fail(fmt::format("its header takes {} bytes of data, but it has {}; it is {}",
                       product == UINT64_MAX ? "2^64 or more" : std::to_string(product),
                       size - header, size - header < product ? "cut off" : "too long"));
    shape_ = Shape(sizes);
  }

  const Shape& shape() const { return shape_; }

  // Calls f with the bytes of all elements, one after the other.
  template <class F>
  void each(F f) {
    constexpr Index block = 1 << 16;
    for (Index left = shape_.size(); left > 0; left -= block)
      for (const unsigned char byte : read(static_cast<std::size_t>(std::min(left, block))))
        f(byte);
  }

 private:
  Bytes read(std::size_t count) {
    Bytes bytes(count);
    if (file_.read(std::as_writable_bytes(std::span(bytes))) < count) fail("the file is cut off");
    return bytes;
  }

  [[noreturn]] void fail(std::string_view what) const {
    throw FileError(fmt::format("{}: {}", where_.str(), what));
  }

  nn::Location where_;
  nn::File file_;
  Shape shape_;
};

}  // namespace

Tensor read_idx_images(const std::filesystem::path& path, Arg<double> divisor, Site site) {
  if (!(divisor > 0 && std::isfinite(divisor)))
    throw ValueError(fmt::format("read_idx_images: the divisor is {}, but has to be positive and "
                                 "finite",
                                 double(divisor)),
                     site);
  IdxFile file(path, 3);
  std::array<float, 256> values;
  for (std::size_t pixel = 0; pixel < values.size(); ++pixel)
    values[pixel] = static_cast<float>(static_cast<double>(pixel) / divisor);
  Tensor images = detail::new_tensor("read_idx_images", file.shape(), f32, site);
  auto to = images.begin_update<float>().begin();
  file.each([&](unsigned char pixel) { *to++ = values[pixel]; });
  return images;
}

Tensor read_idx_labels(const std::filesystem::path& path, Site site) {
  IdxFile file(path, 1);
  Tensor labels = detail::new_tensor("read_idx_labels", file.shape(), i32, site);
  auto to = labels.begin_update<std::int32_t>().begin();
  file.each([&](unsigned char label) { *to++ = label; });
  return labels;
}

}  // namespace reel::datasets
