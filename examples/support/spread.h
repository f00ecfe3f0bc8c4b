#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace reel::html {

/// Keeps a bounded number of the elements of a sequence of any length: the first, every 2^k-th
/// after it, and the last.
template <class T>
class Spread {
 public:
  /// Keeps at most `most` + 1 elements; `most` is even.
  explicit Spread(std::size_t most) : most_(most) {}

  void add(T element) {
    if (last_is_extra_) kept_.pop_back();
    if (count_ % stride_ == 0 && kept_.size() == most_) halve();
    last_is_extra_ = count_ % stride_ != 0;
    kept_.push_back(std::move(element));
    ++count_;
  }
  std::size_t count() const { return count_; }
  const std::vector<T>& elements() const { return kept_; }

 private:
  void halve() {
    for (std::size_t i = 1; 2 * i < kept_.size(); ++i) kept_[i] = std::move(kept_[2 * i]);
    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(kept_.size() / 2), kept_.end());
    stride_ *= 2;
  }

  std::size_t most_, count_ = 0, stride_ = 1;
  std::vector<T> kept_;
  bool last_is_extra_ = false;
};

}  // namespace reel::html
