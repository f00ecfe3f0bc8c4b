#pragma once

#include <reel/autograd/ops.h>

/// Losses of whole sequences of labels, with what decodes their labels. Each loss is one op,
/// computed in logarithms and in double, whatever the dtype, so that neither long sequences nor
/// scores of hundreds overflow; rows of a batch are independent, and have the same bits in any
/// batch. A score of -∞ forbids what it belongs to: it has probability 0, and its gradient is 0.
/// Padding has no part in anything, and may be NaN. All throw ShapeError or DTypeError, naming the
/// argument.
namespace reel {

/// What the loss of a CRF is of the rows' -ln p: their mean over the B sequences, empty ones
/// included; their sum divided by the number of steps that are no padding; or the sum.
enum class CrfReduction { mean, token_mean, sum };

/// The options of crf_loss.
struct CrfLossOptions {
  std::optional<Tensor> lengths = {};  ///< i32 [B], 0 <= length <= T; by default all are T
  CrfReduction reduction = CrfReduction::mean;
};
/// The negative log-likelihood -ln p(y | x) of a linear-chain conditional random field (Lafferty et
/// al., 2001), where a sequence of n labels out of K has
///
///     s(y) = begin[y_1] + Σ_t x_t[y_t] + Σ_(t>1) transitions[y_(t-1), y_t] + end[y_n]
///     ln p(y | x) = s(y) - ln Σ_z e^s(z), over all sequences z of n labels
///
/// with the emissions x [T, B, K], transitions [K, K] from a row's label to a column's, begin and
/// end [K], and labels y i32 [T, B]. A row of length 0 has the loss 0. Throws ValueError for a
/// label outside 0 .. K-1 and for labels that a score of -∞ forbids, naming row and step, and for
/// an empty mean.
Tensor crf_loss(const Tensor& emissions, const Tensor& transitions, const Tensor& begin,
                const Tensor& end, const Tensor& labels, const CrfLossOptions& options = {},
                Site site = {});
/// The probabilities p(y_t = k | x) of each label at each step [T, B, K], 0 in the padding, from
/// the arguments of crf_loss. Without a gradient. Throws ValueError for a row without any sequence
/// of labels that is not forbidden.
Tensor crf_marginals(const Tensor& emissions, const Tensor& transitions, const Tensor& begin,
                     const Tensor& end, const std::optional<Tensor>& lengths = {}, Site site = {});

/// The most probable labels i32 [T, B], -1 in the padding, and their scores s(y) [B].
struct CrfPath {
  Tensor labels, scores;
};
/// The sequence of labels with the largest s(y) (Viterbi, 1967); of equal ones that with the least
/// label at the last step where they differ. Without a gradient. Throws ValueError for a NaN, and
/// for a row without any sequence of labels that is not forbidden.
CrfPath crf_decode(const Tensor& emissions, const Tensor& transitions, const Tensor& begin,
                   const Tensor& end, const std::optional<Tensor>& lengths = {}, Site site = {});

/// The options of ctc_loss.
struct CtcLossOptions {
  std::optional<Tensor> lengths = {};         ///< of the logits, i32 [B]; by default all are T
  std::optional<Tensor> target_lengths = {};  ///< i32 [B]; by default all are S
  Index blank = 0;                            ///< the symbol that stands for no label
  LossReduction reduction = LossReduction::mean;
  /// Whether a row whose target is impossible, since it is longer than the input or needs a logit
  /// of -∞, has the loss and gradient 0 instead of being an error (PyTorch's zero_infinity).
  bool skip_impossible = false;
};
/// Connectionist temporal classification (Graves et al., 2006): -ln p(target | x), the probability
/// that the symbols of the steps, drawn independently from softmax(x_t), give the target once
/// repeated ones are merged and blanks are left out:
///
///     p(target | x) = Σ_π Π_t softmax(x_t)[π_t], over the paths π that give the target
///
/// for logits x [T, B, V] and targets i32 [S, B], which may be empty. The mean is PyTorch's: that
/// over the rows of the loss divided by the length of the target, or by 1 if that is 0. Throws
/// ValueError for a label outside 0 .. V-1 or that is the blank, and for an impossible target,
/// naming its row: a target needs a step for each label and one for the blank between two equal
/// ones.
Tensor ctc_loss(const Tensor& logits, const Tensor& targets, const CtcLossOptions& options = {},
                Site site = {});

}  // namespace reel
