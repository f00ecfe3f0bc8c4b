#pragma once

#include <functional>
#include <span>
#include <type_traits>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/rng.h>

/// Recomputation instead of storage (gradient checkpointing). Checkpoint files, from which a
/// training run resumes, are in optim/run_state.h.
namespace reel {

namespace detail {

using CheckpointedFunction = std::function<Tensors(std::span<const Tensor>, Rng*)>;
Tensors checkpoint(CheckpointedFunction f, const Tensors& inputs, Rng* rng, Site site);

inline Tensors as_tensors(Tensor only) { return {std::move(only)}; }
inline Tensors as_tensors(Tensors several) { return several; }

template <class Results>
Results results_as(Tensors&& results) {
  if constexpr (std::is_same_v<Results, Tensor>)
    return std::move(results[0]);
  else
    return std::move(results);
}

}  // namespace detail

/// f(inputs), of which the tape keeps only the inputs and no intermediate values: the backward pass
/// recomputes f and differentiates that run (Chen et al., "Training deep nets with sublinear memory
/// cost", 2016; Griewank and Walther, "Algorithm 799: revolve", 2000).
///
/// `f(std::span<const Tensor>)` returns a Tensor or Tensors. It may use parameters, which get the
/// same gradients as without the checkpoint, and nested checkpoints. It lives as long as the tape's
/// records, so it should capture by value whatever may be destroyed earlier; it must be
/// deterministic; and every recorded tensor that it reads must be one of the inputs. Derivatives of
/// every order exist; a graph of the gradient (create_graph) stores what f computes.
///
/// Values are bit-identical to a run without the checkpoint. So are gradients, except where a
/// tensor or parameter is used several times in f and also outside: f's contributions are then
/// summed first, and the last bits may differ.
/// Throws ValueError for an undefined input, StaleTensorError where f reads a recorded tensor that
/// is not one of its inputs, and what f throws. If f throws in the backward pass, or returns
/// results of another number, shape or dtype, that is a GradientError that names this call.
template <class F>
auto checkpoint(F f, const Tensors& inputs, Site site = {}) {
  using Results = std::invoke_result_t<const F&, std::span<const Tensor>>;
  return detail::results_as<Results>(detail::checkpoint(
      [f](std::span<const Tensor> in, Rng*) { return detail::as_tensors(f(in)); }, inputs, nullptr,
      site));
}

/// The same for `f(std::span<const Tensor>, Rng&)`, which draws random numbers: the second run
/// repeats the draws of the first, from a generator of its own. `rng` advances only once.
template <class F>
auto checkpoint(F f, const Tensors& inputs, Rng& rng, Site site = {}) {
  using Results = std::invoke_result_t<const F&, std::span<const Tensor>, Rng&>;
  return detail::results_as<Results>(detail::checkpoint(
      [f](std::span<const Tensor> in, Rng* replay) { return detail::as_tensors(f(in, *replay)); },
      inputs, &rng, site));
}

}  // namespace reel
