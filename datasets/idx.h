#pragma once

#include <filesystem>

#include <reel/autograd/tensor.h>

namespace reel::datasets {

/// Images in the idx format of MNIST (LeCun et al., 1998): a big-endian header 0, 0, 8 (bytes), 3
/// (axes), three sizes of 32 bits, then the pixels. As f32 [N, rows, columns] of pixel / divisor:
/// 0 .. 1, or 0 .. 255 with a divisor of 1. Throws FileError if the file is anything else, which is
/// checked against its size before memory is allocated, and ValueError for a divisor that is not
/// positive and finite.
Tensor read_idx_images(const std::filesystem::path& path, Arg<double> divisor = 255,
                       Site site = {});

/// Labels in the idx format, with one axis, as i32 [N]. Throws FileError likewise.
Tensor read_idx_labels(const std::filesystem::path& path, Site site = {});

}  // namespace reel::datasets
