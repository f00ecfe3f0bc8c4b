#pragma once

#include <functional>
#include <optional>
#include <vector>

#include <reel/autograd/ops.h>

namespace reel::nn {

/// What a loss of classes counts, and how.
struct ClassLossOptions {
  Tensor weights = {};                            ///< p [...], position weights
  std::optional<std::int32_t> ignore_index = {};  ///< as in CrossEntropyOptions
  LossReduction reduction = LossReduction::mean;
};

namespace detail {

/// A symbol in a softmax of two levels: what the head predicts for it, and which member of which
/// group it is; one that the head alone predicts has no group.
struct TwoLevelSymbol {
  std::int32_t head;
  std::int32_t group = -1, member = 0;
};

/// The loss of one softmax, of targets [n] for rows x [n, H].
using PartLoss =
    std::function<Tensor(const Tensor& x, const Tensor& targets, const LinearCrossEntropyOptions&)>;
/// That within a group.
using GroupLoss = std::function<Tensor(Index group, const Tensor& x, const Tensor& targets,
                                       const LinearCrossEntropyOptions&)>;

/// Σ p·(head's loss + loss within the group), divided by Σ p for a mean, for x [..., H] and targets
/// i32 [...]; a group sees the rows of its own targets alone. Throws ShapeError, DTypeError and
/// ValueError, naming the module, as cross_entropy does.
Tensor two_level_loss(const char* module, const Tensor& x, const Tensor& targets,
                      const ClassLossOptions& options, const std::vector<TwoLevelSymbol>& symbols,
                      const PartLoss& head, const GroupLoss& within);

}  // namespace detail
}  // namespace reel::nn
