#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <reel/autograd/checkpoint.h>
#include <reel/autograd/engine/segments.h>
#include <reel/nn/mode.h>
#include <reel/nn/state.h>

namespace reel::nn {

/// SequenceOptions::segment for a layer that runs over sequences in ops: `run(x, state, mode,
/// options, first)` is called for each segment of x, under a checkpoint that has the tensors of the
/// state before it as inputs; `first` is the index of its first step in the whole sequence. `run`
/// lives as long as the tape's records.
template <class State, class Run>
Output<State> run_in_segments(const char* name, const Tensor& x, const State& initial,
                              const Mode& mode, const SequenceOptions& options, Site site,
                              Run run) {
  State state = initial;
  Tensors outputs;
  each_segment(x, options, name, site, [&](const Tensor& part, const Segment& segment) {
    Tensors inputs{part};
    state.map([&](const Tensor& s) { return s.defined() ? inputs.emplace_back(s) : s; });
    const auto form =
        std::make_shared<State>();  // the structure of the state after it, without its tensors
    const auto run_segment = [run, before = detach(state), form, segment, site,
                              wanted = options.outputs](std::span<const Tensor> in, Rng* rng) {
      const SiteScope scope(site);
      std::size_t next = 1;
      const State from =
          before.map([&](const Tensor& s) { return s.defined() ? in[next++] : Tensor(); });
      const Output<State> output =
          run(segment.of(in[0]), from, rng ? Mode(Train{*rng}) : Mode(Eval{}), segment.options,
              segment.first);
      *form = output.state.map([](const Tensor&) { return Tensor(); });
      Tensors results;
      if (wanted) results.push_back(output.y);
      output.state.map([&](const Tensor& s) { return results.emplace_back(s); });
      return results;
    };
    const Tensors results = reel::detail::checkpoint(run_segment, inputs,
                                                     mode.training() ? &mode.rng() : nullptr, site);
    if (options.outputs) outputs.push_back(results[0]);
    state = unflatten(*form, std::span(results).subspan(options.outputs ? 1 : 0));
  });
  return {join_segments(std::move(outputs), options), std::move(state)};
}

}  // namespace reel::nn
