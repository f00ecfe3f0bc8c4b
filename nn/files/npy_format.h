#pragma once

#include <cstddef>
#include <span>
#include <string>

#include <reel/autograd/tensor.h>

/// The bytes of a .npy file, read as untrusted input.
namespace reel::nn::npy {

/// Why an array cannot be read. `unfit` says that it is well-formed, but nothing that a tensor can
/// hold.
struct Unreadable {
  std::string reason;
  bool unfit = false;
};

/// The content of such a file. Throws Unreadable.
Tensor parse(std::span<const std::byte> file);

/// What stands before the numbers, which follow as they are in memory.
std::string header_of(const Tensor& x);

}  // namespace reel::nn::npy
