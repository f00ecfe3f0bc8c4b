#include "step_profile.h"

#include <algorithm>
#include <functional>
#include <map>

#include <reel/autograd/tape.h>

#include "trained.h"

namespace reel::char_lm {
namespace {

constexpr int measured = 3;

// Every symbol in turn, so that each row of the embedding is used.
Tensor symbols_in_turn(const Settings& s, Index vocabulary_size, Index first) {
  const Shape shape{s.tbptt_length, s.batch};
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(shape.size()));
  for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(first++ % vocabulary_size);
  return tensor(shape, std::span<const std::int32_t>(tokens));
}

template <class Model>
Profile profile(const Model& model, const Params& params, const RunConfig& config) {
  const Index symbols = config.vocabulary->size();
  const Tensor inputs = symbols_in_turn(config.settings, symbols, 0);
  const Tensor targets = symbols_in_turn(config.settings, symbols, 1);
  Rng rng = dropout_rng(config.settings);
  Profile total;
  for (int i = -1; i < measured; ++i) {
    Tape tape({.profile = true});
    const auto [loss, state] = model.loss(inputs, targets, {}, nn::Train{rng});
    tape.gradient(loss, params);
    if (i >= 0) total += tape.profile();
  }
  return total;
}

std::vector<OpTime> by_op(const Profile& profile) {
  std::map<std::string, OpTime> ops;
  for (const Profile::Event& event : profile.events()) {
    OpTime& time = ops[std::string(event.op)];
    const bool is_forward = event.pass == Profile::Pass::forward;
    (is_forward ? time.forward : time.backward) +=
        static_cast<double>(event.duration_ns) / 1e6 / measured;
    if (is_forward) ++time.calls;
  }
  std::vector<OpTime> sorted;
  for (auto& [name, time] : ops) {
    time.op = name;
    time.calls /= measured;
    sorted.push_back(std::move(time));
  }
  std::ranges::stable_sort(sorted, std::ranges::greater(), &OpTime::total);
  return sorted;
}

}  // namespace

std::vector<OpTime> profile_step(const RunDirectory& run) {
  std::vector<OpTime> ops;
  with_trained_params(
      run, "last",
      [&]<class L>(const CharLm<L>& model, const Params& params, const RunConfig& config) {
        ops = by_op(profile(model, params, config));
        return 0;
      });
  return ops;
}

}  // namespace reel::char_lm
