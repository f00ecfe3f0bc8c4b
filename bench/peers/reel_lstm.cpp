// The same LSTM as scalar_lstm.h by Reel's layer, on one thread and in f64.
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/autograd/threads.h>
#include <reel/nn/cells/lstm.h>

#include "scalar_lstm.h"

using namespace reel;

int main() {
  set_threads(1);
  const scalar_lstm::Sizes size;
  const Params params(0, f64);
  const nn::Lstm lstm(params, size.inputs, size.units);
  const std::vector<double> values = scalar_lstm::drawn(size.parameters(), 2);
  auto next = values.begin();
  const std::vector<Param> all = {lstm.cell.w_ih, lstm.cell.w_hh, lstm.cell.b};
  for (Param p : all) {
    const std::vector<double> own(next, next + p.shape().size());
    p.set(tensor(p.shape(), own, f64));
    next += p.shape().size();
  }
  const Tensor x = tensor({size.steps, size.rows, size.inputs}, scalar_lstm::inputs_of(size), f64);
  const auto loss = [&] { return sum(square(lstm(x).y)); };

  double value = 0;
  const double function = scalar_lstm::milliseconds([&] { value += loss().item(); });
  std::vector<Tensor> gradients;
  const double gradient = scalar_lstm::milliseconds([&] {
    Tape tape;
    gradients = tape.gradient(loss(), all);
  });
  if (!std::isfinite(value)) return 1;
  std::vector<double> result;
  for (const Tensor& g : gradients)
    result.insert(result.end(), g.values<double>().begin(), g.values<double>().end());
  scalar_lstm::report(function, gradient, result);
}
