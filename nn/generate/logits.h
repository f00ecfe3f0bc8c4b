#pragma once

#include <span>

#include <reel/autograd/tensor.h>

// What sampling, generation and beam search read from a model.
namespace reel::nn::detail {

/// The logits of one position in double; -infinity means that a symbol is forbidden.
using LogitRow = PoolVector<double>;

/// Throws ShapeError or DTypeError, naming the caller, unless the logits are f32 or f64 [rows, V].
void check_logits(const char* caller, const Tensor& logits, Index rows, Site site);
/// Row `row` of logits [..., V]. Throws ValueError for NaN or +infinity.
LogitRow logit_row(const char* caller, const Tensor& logits, Index row, Site site);
/// ln Σ eˣ, -infinity if all are.
double log_sum_exp(std::span<const double> row);

}  // namespace reel::nn::detail
