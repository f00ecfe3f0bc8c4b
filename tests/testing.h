#pragma once

#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <string>

#include <reel/autograd/tensor.h>
#include <reel/autograd/threads.h>

/// Shared by many tests.
namespace reel::testing {

/// Whether the address sanitizer is built in.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif
#else
inline constexpr bool sanitized = false;
#endif

/// The number of trials of a randomised test: `usual`, or `in_long` if the environment has
/// REEL_LONG=1, as set by `./dev test --long`.
inline Index rounds(Index usual, Index in_long) {
  const char* value = std::getenv("REEL_LONG");
  return value && std::strcmp(value, "1") == 0 ? in_long : usual;
}

/// The message of what f throws, which must be an E.
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

/// The same without the line.
template <class E, class F>
std::string message_without_line(F f) {
  try {
    f();
  } catch (const E& e) {
    return std::string(e.message());
  }
  return "nothing thrown";
}

/// The time of the processor, on all threads, that f takes: other processes do not add to it.
template <class F>
double cpu_seconds(F f) {
  const std::clock_t start = std::clock();
  f();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

/// Whether shape, dtype and every bit agree.
inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.buffer().data(), b.buffer().data(),
                     static_cast<std::size_t>(a.size()) * size_of(a.dtype())) == 0;
}

/// Restores the number of threads that the other tests run with.
class ThreadsScope {
 public:
  ThreadsScope() = default;
  explicit ThreadsScope(int n) { set_threads(n); }
  ~ThreadsScope() { set_threads(before_); }

 private:
  int before_ = threads();
};

}  // namespace reel::testing
