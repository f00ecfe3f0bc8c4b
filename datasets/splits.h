#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <reel/autograd/rng.h>
#include <reel/datasets/token_source.h>

namespace reel::datasets {

/// The first part of a sequence for training, and the rest for validation.
struct Split {
  std::span<const std::int32_t> train, valid;
};

/// Splits after the first floor(train_frac · n) of n tokens. Throws ValueError unless 0 <
/// train_frac <= 1.
Split split(std::span<const std::int32_t> tokens, Arg<double> train_frac, Site site = {});

/// The same parts of tokens that need not be in memory.
struct SourceSplit {
  TokenRange train, valid;
};

/// Splits after the first floor(train_frac · n) of n tokens, to which the parts refer. Throws
/// likewise.
SourceSplit split(const TokenSource& tokens, Arg<double> train_frac, Site site = {});
SourceSplit split(const TokenSource&& tokens, Arg<double> train_frac, Site site = {}) = delete;

/// Consecutive parts of a sequence for training, validation and test.
struct TestSplit {
  std::span<const std::int32_t> train, valid, test;
};

/// Splits n tokens into the first floor(train_frac · n), the next floor(valid_frac · n) and the
/// rest. Throws ValueError unless 0 < train_frac <= 1, valid_frac >= 0 and both together are at
/// most 1.
TestSplit split(std::span<const std::int32_t> tokens, Arg<double> train_frac,
                Arg<double> valid_frac, Site site = {});

/// Items, such as sentences, for training, validation and test, each part in ascending order.
struct ItemSplit {
  std::vector<Index> train, valid, test;
};

/// Splits items 0 .. n - 1 at random into parts of the sizes that `split` would give them: a
/// function of n, the fractions, and seed and stream of the generator. Throws as it does, and if n
/// is negative.
ItemSplit split_items(Arg<Index> n, Arg<double> train_frac, Arg<double> valid_frac, const Rng& rng,
                      Site site = {});

}  // namespace reel::datasets
