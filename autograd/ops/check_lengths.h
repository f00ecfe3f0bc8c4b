#pragma once

#include <optional>

#include <reel/autograd/tensor.h>

namespace reel {

/// Throws DTypeError or ShapeError unless the lengths are i32 [B] for a tensor `x` [T, B, ...], and
/// ValueError for one outside 0 .. T, calling them `name` and the tensor `of`.
void check_lengths(const Tensor& lengths, const char* name, const Tensor& x, const char* of,
                   const char* op, Site site);

/// Lengths that were checked, or an undefined tensor if none are given or the tensor has no rows,
/// which a shape rule reports.
Tensor given_lengths(const std::optional<Tensor>& lengths, const char* name, const Tensor& x,
                     const char* of, const char* op, Site site);

}  // namespace reel
