#pragma once

#include <span>
#include <vector>

#include <reel/autograd/rng.h>

namespace reel::datasets {

/// Batches of at most `batch_size` sequences.
struct BucketOptions {
  Index batch_size = 32;
  /// Sequences are sorted by length within pools of this many batches: 1 batches them at random;
  /// the larger, the less padding, and the less random which sequences meet.
  Index pool = 100;
};

/// What padding costs: steps of the sequences, and positions T·B of their batches.
struct PaddingCost {
  Index steps = 0, positions = 0;

  /// The share of the positions that is padding; 0 if there are none.
  double share() const;
};

/// Batches of sequences of similar lengths in a random order, another one in each epoch. An epoch
/// has every sequence once: it takes them in a random order, cuts that into pools, sorts each pool
/// by length, cuts it into batches, and shuffles these and what is in them. All but one batch are
/// full.
///
/// A batch is a list of indices, so several arrays (words and their labels) are padded alike:
///
///     for (const auto& batch : batches.epoch(3)) pad(pick(words, batch), 0);
///
/// The batches of an epoch are a function of seed and stream of the generator, lengths, options and
/// the epoch's number. A run resumes at batch i of epoch e with epoch(e)[i].
class BucketedBatches {
 public:
  /// Throws ValueError if there are no sequences, or one has a negative length, or for options that
  /// are not positive.
  BucketedBatches(std::vector<Index> lengths, const BucketOptions& options, const Rng& rng,
                  Site site = {});

  /// The number of batches of every epoch.
  Index count() const;
  /// The batches of an epoch; epochs count from 1. Throws ValueError for one before.
  std::vector<std::vector<Index>> epoch(Arg<Index> epoch, Site site = {}) const;
  /// What padding costs in an epoch.
  PaddingCost cost(Arg<Index> epoch, Site site = {}) const;

 private:
  std::vector<Index> lengths_;
  BucketOptions options_;
  Rng rng_;
};

}  // namespace reel::datasets
