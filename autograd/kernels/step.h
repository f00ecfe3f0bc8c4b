#pragma once

#include <functional>

#include <reel/autograd/dtype.h>
#include <reel/autograd/recurrent.h>
#include <reel/autograd/shape.h>

// One step of each recurrent layer with packed recurrent weights, for models that run one step at a
// time. The arithmetic, and so every bit, is that of the layer over a sequence.
namespace reel::kernels {

/// Advances `rows` rows by one step. `gates` [rows, G·H] contains W x + b and is overwritten;
/// `before` and `after` are the states [rows, H], in an LSTM h and c.
template <Real T>
using StepFunction =
    std::function<void(Index rows, T* gates, const T* const* before, T* const* after)>;

/// The steps of layers with n = H units; each packs `w_hh` [G·H, H].
template <Real T>
StepFunction<T> rnn_step(const T* w_hh, Index n, Activation activation);
template <Real T>
StepFunction<T> gru_step(const T* w_hh, const T* b_hn, Index n, Reset reset);
template <Real T>
StepFunction<T> lstm_step(const T* w_hh, Index n);

}  // namespace reel::kernels
