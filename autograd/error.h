#pragma once

#include <stdexcept>
#include <string>

namespace reel {

/// A place in the user's program. As a defaulted last argument it records the line of the call.
struct Site {
  const char* file = nullptr;
  int line = 0;

  constexpr Site(const char* file = __builtin_FILE(), int line = __builtin_LINE())
      : file(file), line(line) {}

  /// "train.cpp:12".
  std::string str() const;
};

/// Lends one site to every op called in its lifetime, so that an error inside a layer names the
/// line that called the layer. The outermost scope of a thread wins.
class SiteScope {
 public:
  explicit SiteScope(Site site) : outermost_(!active_) {
    if (outermost_) site_ = site;
    active_ = true;
  }
  ~SiteScope() { active_ = !outermost_; }
  SiteScope(const SiteScope&) = delete;
  SiteScope& operator=(const SiteScope&) = delete;

  /// `site`, or that of the outermost scope where there is one.
  static Site resolve(Site site) { return active_ ? site_ : site; }

 private:
  static inline constinit thread_local bool active_ = false;
  static inline constinit thread_local Site site_{nullptr, 0};

  bool outermost_;
};

/// The base of every error that Reel throws. A function that throws has had no effect.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Shapes, ranks or axes that do not fit.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// An element type that an op does not take, or two that should agree and do not.
class DTypeError : public Error {
 public:
  using Error::Error;
};

/// A value outside the range that an argument allows.
class ValueError : public Error {
 public:
  using Error::Error;
};

/// A tensor or parameter that does not belong to the tape it is used with (any more), or a
/// parameter that changed after it was packed.
class StaleTensorError : public Error {
 public:
  using Error::Error;
};

/// A gradient that was asked for and cannot be had.
class GradientError : public Error {
 public:
  using Error::Error;
};

/// A NaN or an infinity, found by a tape that watches for them.
class NotFiniteError : public Error {
 public:
  using Error::Error;
};

/// A file that cannot be read or written, or whose content is not what it should be.
class FileError : public Error {
 public:
  using Error::Error;
};

}  // namespace reel
