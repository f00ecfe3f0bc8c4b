#pragma once

#include <cstdint>
#include <optional>

#include <reel/autograd/tensor.h>

namespace reel::datasets {

/// Positions that a metric leaves out, as a loss does: those whose target is `ignore_index`, and
/// those where `mask`, of the targets' shape and any dtype, is 0.
struct Ignored {
  std::optional<std::int32_t> ignore_index = {};
  Tensor mask = {};
};

/// The share of positions where the prediction is the target: i32 tensors of one shape, predictions
/// such as argmax(logits). Throws DTypeError or ShapeError, and ValueError if no position counts.
double accuracy(const Tensor& targets, const Tensor& predictions, const Ignored& ignored = {},
                Site site = {});

/// e^loss, of a mean loss in nats: the number of equally likely symbols that is as hard to predict.
double perplexity(Arg<double> nats);
/// loss / ln 2: a mean loss in nats in bits.
double bits(Arg<double> nats);

}  // namespace reel::datasets
