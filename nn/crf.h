#pragma once

#include <string>
#include <utility>
#include <vector>

#include <reel/autograd/sequence_losses.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

/// Labels that may not follow each other, begin a sequence or end one, by their numbers.
struct CrfConstraints {
  std::vector<std::pair<Index, Index>> transitions = {};  ///< from, to
  std::vector<Index> begin = {}, end = {};
};

/// The constraints of labels "O", "B-TYPE" and "I-TYPE": an I continues a B or I of its type (BIO,
/// Ramshaw and Marcus, 1995). If there are labels "E-TYPE" or "S-TYPE", an E ends what a B begins,
/// an S is a span of one word, and no span remains open (BIOES). Throws ValueError for any other
/// label, naming its place.
CrfConstraints span_constraints(const std::vector<std::string>& labels, Site site = {});

/// A linear-chain conditional random field over `count` labels, on the emissions [T, B, count] of
/// another layer: see crf_loss. Parameters `transitions` [count, count] (from, to), `begin` and
/// `end` [count], zero at first. A forbidden one is taken as -∞ in their place: it keeps its value,
/// and its gradient is 0.
struct Crf {
  /// Throws ValueError for a count that is not positive, and for a constraint on a label outside
  /// 0 .. count-1.
  Crf(const ModuleParams& p, Arg<Index> count, const CrfConstraints& constraints = {});

  /// crf_loss of labels i32 [T, B].
  Tensor loss(const Tensor& emissions, const Tensor& labels, const CrfLossOptions& options = {},
              Site site = {}) const;
  /// crf_decode: the best labels i32 [T, B], -1 in the padding, and their scores [B]. Both are
  /// constants, so they can be computed from emissions of a tape that is used up.
  CrfPath decode(const Tensor& emissions, const std::optional<Tensor>& lengths = {},
                 Site site = {}) const;
  /// crf_marginals [T, B, count], constants as well.
  Tensor marginals(const Tensor& emissions, const std::optional<Tensor>& lengths = {},
                   Site site = {}) const;

  Param transitions, begin, end;

 private:
  Tensor no_transitions_, no_begin_,
      no_end_;  // i32 masks of what is forbidden, undefined if nothing
};

}  // namespace reel::nn
