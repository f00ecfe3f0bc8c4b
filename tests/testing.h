#pragma once

#include <cstring>
#include <exception>
#include <string>

#include <reel/autograd/tensor.h>

/// What many tests need.
namespace reel::testing {

/// The message of what f throws, which has to be an E.
template <class E, class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  } catch (const std::exception& e) {
    return std::string("of the wrong type: ") + e.what();
  }
  return "nothing thrown";
}

/// Whether shape, dtype and every bit agree.
inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.buffer().data(), b.buffer().data(),
                     static_cast<std::size_t>(a.size()) * size_of(a.dtype())) == 0;
}

}  // namespace reel::testing
