#pragma once

#include <reel/datasets/windows.h>

#include "model.h"

namespace reel::char_lm {

/// The mean loss over windows, in nats per symbol: the state is zero at first and is carried from
/// one to the next. Calls before_each() before each of them.
template <nn::Layer L, class F>
double mean_loss(const CharLm<L>& model, const datasets::Windows& windows, F&& before_each) {
  typename CharLm<L>::State state;
  double sum = 0;
  for (const auto& [inputs, targets] : windows) {
    before_each();
    auto [loss, next] = model.loss(inputs, targets, state);
    sum += loss.item();
    state = std::move(next);
  }
  return sum / static_cast<double>(windows.count());
}

}  // namespace reel::char_lm
