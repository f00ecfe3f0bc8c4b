#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace reel {

/// A source location in the user's program. As a defaulted last argument it records the line of the
/// call.
struct Site {
  /// Only `{}` converts to one implicitly: otherwise the 0 in `relu(x, 0)` would pass as a null
  /// pointer.
  struct Here {
    explicit Here() = default;
  };
  constexpr Site(Here = Here(), const char* here = __builtin_FILE(), int at = __builtin_LINE())
      : file(here), line(at) {}
  constexpr explicit Site(const char* in, int at = 0) : file(in), line(at) {}

  /// "train.cpp:12".
  std::string place() const;
  /// The end of an error message that is created now: the place, the current module and time step,
  /// and the call of the library if user code runs inside it (OwnSites): "cell.cpp:12, in module
  /// rnn, time step 3, called at train.cpp:20".
  std::string str() const;

  const char* file;
  int line;
};

/// Gives one site to every op called in its lifetime, so that an error inside a layer names the
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

  /// `site`, or that of the outermost scope if there is one.
  static Site resolve(Site site) { return active_ ? site_ : site; }
  /// That of the outermost scope; an unknown one if there is none.
  static Site current() { return resolve(Site(nullptr)); }

 private:
  friend struct Site;
  friend class OwnSites;

  [[gnu::visibility("default")]] static inline constinit thread_local bool active_ = false;
  [[gnu::visibility("default")]] static inline constinit thread_local Site site_{nullptr, 0};
  [[gnu::visibility("default")]] static inline constinit thread_local Site caller_{
      nullptr, 0};  // of the library: see OwnSites

  bool outermost_;
};

/// For user code that the library calls, such as a cell: ops in its lifetime name their own lines
/// despite enclosing scopes, and errors also say where the library was called.
class OwnSites {
 public:
  OwnSites() : active_(SiteScope::active_), site_(SiteScope::site_), caller_(SiteScope::caller_) {
    if (active_) SiteScope::caller_ = site_;
    SiteScope::active_ = false;
  }
  ~OwnSites() {
    SiteScope::active_ = active_;
    SiteScope::site_ = site_;
    SiteScope::caller_ = caller_;
  }
  OwnSites(const OwnSites&) = delete;
  OwnSites& operator=(const OwnSites&) = delete;

 private:
  bool active_;
  Site site_, caller_;
};

/// Calls a part of a model that the user may have written. If it takes a Site as its last argument,
/// errors name its caller; otherwise ops name their own lines.
template <class Part, class... Arguments>
decltype(auto) call_part(const Part& part, Arguments&&... arguments) {
  if constexpr (std::is_invocable_v<const Part&, Arguments..., Site>) {
    return part(std::forward<Arguments>(arguments)...);
  } else {
    const OwnSites own;
    return part(std::forward<Arguments>(arguments)...);
  }
}

/// The base of every error that Reel throws. A function that throws has had no effect.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message)
      : std::runtime_error(message), length_(message.size()) {}
  /// what() ends with the place, "... (train.cpp:12)": that of the outermost SiteScope, otherwise
  /// `site`.
  Error(const std::string& message, Site site);

  /// what() without the place, for those who use a program and do not know its source.
  std::string_view message() const { return std::string_view(what()).substr(0, length_); }

 private:
  std::size_t length_;
};

/// Incompatible shapes, ranks or axes.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// An element type (dtype) that an op does not support, or two that should agree and do not.
class DTypeError : public Error {
 public:
  using Error::Error;
};

/// An argument value out of range.
class ValueError : public Error {
 public:
  using Error::Error;
};

/// Out of memory: more than any system can address, or more than this one grants.
class MemoryError : public Error {
 public:
  using Error::Error;
};

/// A tensor or parameter that does not belong to the tape it is used with (any more), or a
/// parameter that changed after it was packed.
class StaleTensorError : public Error {
 public:
  using Error::Error;
};

/// A gradient that was requested and does not exist.
class GradientError : public Error {
 public:
  using Error::Error;
};

/// A NaN or an infinity, found by a tape that watches for them.
class NotFiniteError : public Error {
 public:
  using Error::Error;
};

/// A file that cannot be read or written, or whose content is invalid.
class FileError : public Error {
 public:
  using Error::Error;
};

}  // namespace reel
