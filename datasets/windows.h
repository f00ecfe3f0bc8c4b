#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <reel/autograd/tensor.h>
#include <reel/datasets/splits.h>
#include <reel/datasets/token_source.h>

namespace reel::datasets {

/// One step of truncated backpropagation: i32 tensors [T, B], the targets one token ahead.
struct Window {
  Tensor inputs, targets;
};

/// What becomes of the steps at the end of the streams that are no whole window.
enum class LastWindow : std::uint8_t { drop, keep };

/// A sequence of n tokens as B contiguous streams of floor((n - 1) / B), cut into windows of T
/// steps:
///
///     inputs[t, b] = tokens[b · stream_length + i · T + t],  targets[t, b] = the token after it
///
/// In every stream window i + 1 continues where window i ended, so the recurrent state is carried
/// from one to the next. The last one may have fewer steps, with LastWindow::keep, or is dropped if
/// it would.
class Windows {
 public:
  /// Refers to `tokens`, which must outlive it. Throws ValueError unless batch and seq_len are
  /// positive and there are enough tokens for one window: `least_tokens(batch, seq_len)`, or if the
  /// last one is kept `least_tokens(batch, 1)`.
  Windows(std::span<const std::int32_t> tokens, Arg<Index> batch, Arg<Index> seq_len,
          Site site = {})
      : Windows(tokens, batch, seq_len, LastWindow::drop, site) {}
  Windows(std::span<const std::int32_t> tokens, Arg<Index> batch, Arg<Index> seq_len,
          LastWindow last, Site site = {});
  Windows(std::vector<std::int32_t>&& tokens, Arg<Index> batch, Arg<Index> seq_len) = delete;
  /// Of tokens that are read when their window is made. Refers to `tokens` and throws likewise;
  /// then a window throws what reading throws.
  Windows(const TokenSource& tokens, Arg<Index> batch, Arg<Index> seq_len, Site site = {})
      : Windows(tokens, batch, seq_len, LastWindow::drop, site) {}
  Windows(const TokenSource& tokens, Arg<Index> batch, Arg<Index> seq_len, LastWindow last,
          Site site = {});
  Windows(const TokenSource&& tokens, Arg<Index> batch, Arg<Index> seq_len) = delete;

  /// The tokens that one window needs: batch · seq_len + 1.
  static Index least_tokens(Arg<Index> batch, Arg<Index> seq_len, Site site = {});

  /// The number of windows: floor(stream_length / T), or if the last one is kept the number rounded
  /// up.
  Index count() const { return count_; }
  Index batch() const { return batch_; }
  Index seq_len() const { return seq_len_; }

  /// Window i. Throws ValueError unless 0 <= i < count().
  Window operator[](const Tensor::Place& i) const;

  /// Iteration in order: `for (auto [inputs, targets] : windows)`.
  class Iterator {
   public:
    Iterator(const Windows& windows, Index i) : windows_(&windows), i_(i) {}
    Window operator*() const { return (*windows_)[i_]; }
    Iterator& operator++() {
      ++i_;
      return *this;
    }
    bool operator==(const Iterator& other) const { return i_ == other.i_; }

   private:
    const Windows* windows_;
    Index i_;
  };
  Iterator begin() const { return Iterator(*this, 0); }
  Iterator end() const { return Iterator(*this, count_); }

 private:
  Windows(Index tokens, Index batch, Index seq_len, LastWindow last, Site site);
  std::span<const std::int32_t> tokens_from(Index begin, Index steps,
                                            std::vector<std::int32_t>& read) const;

  std::span<const std::int32_t> tokens_;
  const TokenSource* source_ = nullptr;  // in place of tokens_
  Index batch_, seq_len_, stream_length_ = 0, count_ = 0;
};

}  // namespace reel::datasets
