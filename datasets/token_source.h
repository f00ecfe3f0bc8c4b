#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <reel/autograd/shape.h>

namespace reel::datasets {

/// Tokens by their numbers, wherever they are kept: what Windows takes where tokens are not in
/// memory.
class TokenSource {
 public:
  virtual ~TokenSource() = default;

  /// How many tokens there are.
  virtual Index size() const = 0;
  /// Writes tokens begin, begin + 1, ... to `to`, all of which exist. May be called on several
  /// threads at once.
  virtual void read(Index begin, std::span<std::int32_t> to) const = 0;
};

/// Tokens that are in memory.
class TokensInMemory : public TokenSource {
 public:
  explicit TokensInMemory(std::vector<std::int32_t> tokens) : tokens_(std::move(tokens)) {}

  Index size() const override { return static_cast<Index>(tokens_.size()); }
  void read(Index begin, std::span<std::int32_t> to) const override {
    std::copy_n(tokens_.begin() + begin, to.size(), to.begin());
  }

 private:
  std::vector<std::int32_t> tokens_;
};

/// Tokens begin .. begin + size - 1 of another source, which has them and must outlive this.
class TokenRange : public TokenSource {
 public:
  TokenRange(const TokenSource& tokens, Index begin, Index size)
      : tokens_(&tokens), begin_(begin), size_(size) {}

  Index size() const override { return size_; }
  void read(Index begin, std::span<std::int32_t> to) const override {
    tokens_->read(begin_ + begin, to);
  }

 private:
  const TokenSource* tokens_;
  Index begin_, size_;
};

}  // namespace reel::datasets
