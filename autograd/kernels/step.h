#pragma once

#include <functional>

#include <reel/autograd/dtype.h>
#include <reel/autograd/recurrent.h>
#include <reel/autograd/shape.h>

// One step of each recurrent layer with its recurrent weights packed, for models that run a step at
// a time. The arithmetic is that of the layer over a sequence, and so are the bits.
namespace reel::kernels {

/// Takes `rows` rows one step on. `gates` [rows, G·H] comes in as W x + b
/// and is overwritten; `before` and `after` are the states [rows, H], in an LSTM h and c.
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
