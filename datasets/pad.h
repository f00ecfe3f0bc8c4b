#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <reel/autograd/tensor.h>

namespace reel::datasets {

/// Sequences of different lengths as one batch: x [T, B, ...] with T the longest length, and
/// lengths i32 [B], for SequenceOptions::lengths.
struct Padded {
  Tensor x, lengths;
};

/// Token sequences as x i32 [T, B], with `value` after the end of each. An empty sequence has
/// length 0. Throws ValueError if there are none, or for a value that i32 has not.
Padded pad(std::span<const std::vector<std::int32_t>> sequences, Arg<Index> value, Site site = {});
/// Sequences of feature vectors, tensors [T_i, D...] of one dtype, as x [T, B, D...]. These are
/// data: the result is on no tape. Throws ShapeError or DTypeError naming a sequence that differs
/// from the first one, ShapeError for those of rank 0 or 4, ValueError if there are none, or for a
/// value that is no i32 where they are.
Padded pad(std::span<const Tensor> sequences, Arg<double> value = 0, Site site = {});

/// 1 where a step belongs to its sequence and 0 in the padding: [T, B] for lengths i32 [B]. Losses
/// take it as position weights. Throws ValueError naming a length that is not in 0 .. T.
Tensor length_mask(const Tensor& lengths, Arg<Index> T, DType dtype = f32, Site site = {});

/// The lengths of sequences, for BucketedBatches.
std::vector<Index> lengths_of(std::span<const std::vector<std::int32_t>> sequences);
std::vector<Index> lengths_of(std::span<const Tensor> sequences, Site site = {});

/// The items at these indices, in their order: the sequences of a batch. Throws ValueError if one
/// is out of range.
template <class T>
std::vector<T> pick(const std::vector<T>& items, std::span<const Index> indices, Site site = {}) {
  std::vector<T> picked;
  picked.reserve(indices.size());
  for (const Index i : indices) {
    if (i < 0 || i >= std::ssize(items))
      throw ValueError(
          "pick: there is no item " + std::to_string(i) + " among " + std::to_string(items.size()),
          site);
    picked.push_back(items[static_cast<std::size_t>(i)]);
  }
  return picked;
}

}  // namespace reel::datasets
