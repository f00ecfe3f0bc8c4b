// Forecasts of a series many steps ahead, with an interval: a recurrent network reads a window of
// the past and gives three quantiles of each step that follows, all at once ("direct") or one step
// at a time, where its own median is the next input ("iterated"). It is compared with a linear
// autoregression on the same window, and with the assumption that nothing changes.
#include <fmt/format.h>

#include <cmath>

#include <reel/nn/files/atomic_file.h>
#include <reel/reel.h>

#include "support/forecasts.h"
#include "support/layers.h"
#include "support/program.h"
#include "support/series_data.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings {
  std::string data = "seasonal", csv, column, forecast = "direct", cell = "gru", save, chart;
  Index window = 64, horizon = 16, units = 32, batch = 32, steps = 100, epochs = 20, seed = 1;
  double interval = 0.8, learning_rate = 5e-3;
};

// Three quantiles of each step that follows a window [T, B, 1]: [horizon, B, 3].
template <class L>
struct Model {
  Model(const Params& params, const Settings& s)
      : rnn(params / "rnn", 1, s.units),
        head(params / "head", s.units, s.forecast == "direct" ? 3 * s.horizon : 3),
        settings(s) {}

  Tensor operator()(const Tensor& past) const {
    const Tensor level = mean(past, 0);  // [B, 1]: what is learned does not depend on it
    typename L::State state = rnn(past - level).state;
    Tensor next = head(state.h);
    if (settings.forecast == "direct")
      return level + transpose(reshape(next, {past.size(1), settings.horizon, 3}), 0, 1);
    std::vector<Tensor> steps{next};
    for (Index step = 1; step < settings.horizon; ++step) {
      const Tensor median = slice(steps.back(), 1, 1, 2);
      state = rnn(expand(median, 0), state).state;
      steps.push_back(head(state.h));
    }
    return level + stack(steps);
  }

  L rnn;
  nn::Linear head;
  const Settings& settings;
};

Tensor loss_of(const Tensor& quantiles, const SeriesWindows& windows, double interval) {
  const auto part = [&](Index i, double q) {
    return pinball(slice(quantiles, 2, i, i + 1), windows.future, q);
  };
  return part(0, (1 - interval) / 2) + part(1, 0.5) + part(2, (1 + interval) / 2);
}

double rmse(const Tensor& x, const Tensor& y) { return std::sqrt(mse(x, y).item()); }

template <class L>
void train(const Settings& s, const std::string& settings) {
  if (!s.chart.empty()) const nn::AtomicFile can_be_written(s.chart);  // or it throws, before work
  Rng series_rng(static_cast<std::uint64_t>(s.seed), 2);
  const Tensor series =
      s.csv.empty() ? generated_series(s.data, series_rng) : read_column(s.csv, s.column);
  const Index n = series.size(0), valid_begin = n * 7 / 10, test_begin = n * 85 / 100;
  const datasets::Normalization normal(slice(series, 0, 0, valid_begin));
  const auto part = [&](Index begin, Index end) {
    return SeriesPart(normal.apply(series), begin, end, s.window, s.horizon);
  };
  const SeriesPart known = part(0, valid_begin);
  const SeriesWindows valid = part(valid_begin, test_begin).spread(500);
  const SeriesWindows test = part(test_begin, n).spread(500);

  const Params params(static_cast<std::uint64_t>(s.seed));
  const Model<L> model(params, s);
  optim::Adam adam(params, {.learning_rate = s.learning_rate});
  Rng rng(static_cast<std::uint64_t>(s.seed), 1);
  Training training(params, adam, rng, {.epochs = s.epochs, .save = s.save, .settings = settings});
  while (training.next()) {
    for (Index step = 0; step < s.steps; ++step) {
      const SeriesWindows batch = known.draw(s.batch, rng);
      Tape tape;
      const Tensor loss = loss_of(model(batch.past), batch, s.interval);
      Gradients gradients = tape.gradient(loss, params);
      optim::clip_by_norm(gradients, 1);
      adam.step(gradients);
      training.step(step, s.steps, loss.item());
    }
    const double loss = loss_of(model(valid.past), valid, s.interval).item();
    training.end_epoch(loss, fmt::format("valid {:.4f}", loss));
  }
  training.load_best();

  const Tensor wider = missing_width(model(valid.past), valid.future, s.interval);
  const Tensor y = model(test.past), median = slice(y, 2, 1, 2);
  const Tensor bounds = concat({slice(y, 2, 0, 1) - wider, median, slice(y, 2, 2, 3) + wider}, 2);
  const Tensor held =
      logical_and(slice(bounds, 2, 0, 1) <= test.future, test.future <= slice(bounds, 2, 2, 3));
  const double unit = normal.deviation()[0];
  const Tensor linear = linear_forecast(known.spread(10000), test.past);
  const Tensor same = broadcast_to(slice(test.past, 0, s.window - 1, s.window), median.shape());
  const std::string of = s.csv.empty() ? s.data : s.csv;
  print_result(fmt::format("root mean squared error on {}, {}", of, s.forecast),
               unit * rmse(median, test.future),
               fmt::format("{:.4g} of a linear autoregression, {:.4g} if nothing changes",
                           unit * rmse(linear, test.future), unit * rmse(same, test.future)));
  print_result(fmt::format("share in the interval for {}", s.interval), mean(held.to(f64)).item(),
               fmt::format("{} wanted", s.interval));
  if (s.chart.empty()) return;
  draw_forecast(s.chart, {normal.invert(test.past), normal.invert(test.future)},
                bounds * unit + normal.mean()[0]);
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("series", "Forecasts a series many steps ahead, with an interval.");
  program.option("--data", s.data, "a generated series", generated_names);
  program.option("--csv", s.csv, "table with a series in place of it");
  program.option("--column", s.column, "its column, if there are several", "NAME");
  program.option("--forecast", s.forecast, "all steps at once, or one fed back",
                 {"direct", "iterated"});
  program.option("--cell", s.cell, "recurrent layer", layer_names);
  program.option("--window", s.window, "steps that the network sees");
  program.option("--horizon", s.horizon, "steps to forecast");
  program.option("--interval", s.interval, "share of values that intervals hold", 0.01, 0.99);
  program.option("--units", s.units, "of the recurrent layer");
  program.option("--batch", s.batch, "windows of a step");
  program.option("--steps", s.steps, "steps of an epoch").fast(50);
  program.option("--epochs", s.epochs, "epochs").fast(8);
  program.option("--learning-rate", s.learning_rate, "of Adam");
  program.option("--seed", s.seed, "of initial values and data", 0);
  program.option("--save", s.save, "file to keep the training in, and to go on from");
  program.option("--chart", s.chart, "file for the last forecast, as SVG");
  return program.run(argc, argv, [&] {
    with_layer(s.cell,
               [&](auto layer) { train<typename decltype(layer)::type>(s, program.settings()); });
  });
}
