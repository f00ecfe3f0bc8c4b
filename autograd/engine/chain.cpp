// A gradient through the consecutive tapes of one computation.
#include <algorithm>
#include <optional>

#include <reel/autograd/engine/backward.h>
#include <reel/autograd/engine/scope.h>

namespace reel {

// The pass over a tape begins where the one over the next tape ended: the gradients of its inputs
// are those of this tape's outputs, and what it has summed up for the parameters is added to here.
void Backward::continue_from(Backward& later, std::span<const Join> joins, const Params& params) {
  later_ = &later;
  joins_.assign(joins.begin(), joins.end());
  PoolVector<std::int32_t> slots(params.store_size(), -1);
  for (const Tape::Leaf& leaf : tape_.leaves_)
    if (params.contains(*leaf.entry)) slots[leaf.entry->index] = leaf.slot;
  for (const Tape::Leaf& leaf : later.tape_.leaves_) {
    if (!params.contains(*leaf.entry)) continue;
    std::int32_t& slot = slots[leaf.entry->index];
    if (slot < 0) {  // not used on this tape: a leaf without a use carries the sum on
      slot = tape_.leaf(leaf.entry).trace().slot;
      marks_.resize(tape_.slots_.size(), unneeded);
      want(slot);
    }
    joins_.push_back({slot, leaf.slot});
  }
}

void Backward::take_over() {
  for (const Join& join : joins_)
    if (is_needed(join.output)) take_over(join);
}

void Backward::take_over(const Join& join) {
  Entry& theirs = later_->gradients_[static_cast<std::size_t>(join.input)];
  Entry& ours = gradients_[static_cast<std::size_t>(join.output)];
  const bool by_rows = later_->row_parts_of(join.input) != later_->row_parts_.end();
  const bool is_used_twice = ours.buffer || row_parts_of(join.output) != row_parts_.end();
  if ((theirs.buffer || by_rows) && is_used_twice)
    return accumulate(join.output, later_->gradient(join.input));
  if (theirs.buffer) {
    if (marks_[static_cast<std::size_t>(join.output)] & blocked) throw_blocked(join.output);
    Many* const many = later_->many(join.input);
    ours = std::exchange(theirs, {});
    if (many) {
      many_.push_back(std::move(*many));
      ours.contributions = ~static_cast<std::int32_t>(many_.size() - 1);
    }
  }
  if (const auto parts = later_->row_parts_of(join.input); parts != later_->row_parts_.end()) {
    row_parts_.push_back(std::move(*parts));
    row_parts_.back().slot = join.output;
    later_->row_parts_.erase(parts);
  }
  const auto pending = std::ranges::find(later_->products_, join.input, &Products::slot);
  if (pending == later_->products_.end()) return;
  products_.push_back(std::exchange(*pending, {join.input}));
  products_.back().slot = join.output;
}

Gradients Backward::through(std::span<const Stretch> stretches, const Params& params, Site site) {
  const auto uses_params = [&](const Stretch& stretch) {
    return std::ranges::any_of(stretch.tape->leaves_, [&](const Tape::Leaf& leaf) {
      return params.contains(*leaf.entry);
    });
  };
  for (const Stretch& stretch : stretches) {
    if (stretch.loss.defined()) stretch.tape->require(stretch.loss, "gradient", "the loss", site);
    if (!stretch.updated_since) stretch.tape->check_parameters(site);
  }
  if (std::ranges::none_of(stretches, uses_params))
    stretches.front().tape->require_used(params, site);

  std::optional<Backward> passes[2];  // over this tape, and over the one after it
  for (std::size_t k = 0; k < stretches.size(); ++k) {
    const Stretch& stretch = stretches[k];
    std::optional<Backward>&pass = passes[k % 2], &later = passes[(k + 1) % 2];
    pass.emplace(*stretch.tape, GradientOptions{.keep = stretch.keep}, site);
    pass->want(params);
    if (k + 1 < stretches.size())
      for (const Join& join : stretch.joins) pass->want(join.input);
    if (later) pass->continue_from(*later, stretches[k - 1].joins, params);
    const Tensor& loss = stretch.loss;
    const std::int32_t output = loss.trace().slot;
    const Tensor seed =
        loss.defined() ? full(loss.shape(), stretch.weight, loss.dtype()) : Tensor();
    pass->propagate(std::span(&output, 1), std::span(&seed, 1));
    if (later) later->finish();
    later.reset();
  }
  Backward& earliest = *passes[(stretches.size() + 1) % 2];
  earliest.complete();
  Gradients gradients = earliest.result(params);
  earliest.finish();
  return gradients;
}

}  // namespace reel
