// How gradients flow back through time: |dL/dh_t| of vanilla RNNs, GRUs and LSTMs over hundreds of
// steps, where the loss depends on the output of the last step alone, for new networks and, with
// --train, after they learned (or not) to give back a number that was marked somewhere before.
#include <fmt/format.h>

#include <algorithm>

#include <reel/nn/files/atomic_file.h>
#include <reel/reel.h>

#include "support/chart.h"
#include "support/program.h"
#include "support/recall_task.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings {
  std::string chart;
  Index length = 200, units = 64, rows = 16, train = 0, train_length = 50, seed = 1;
  double learning_rate = 3e-3;
};

// [watch]
template <class L>
nn::LayerReport look_into(const Params& params, const Settings& s,
                          const typename L::Options& options) {
  const Params exact = params.to(f64);  // in f32 the smallest gradients would be 0
  const RecallNetwork<L> network(exact, s.units, options);
  Rng rng(12345);
  const Tensor x = draw_marked(s.length, s.rows, rng, f64);

  nn::Diagnostics diagnostics;
  const auto watch = diagnostics.watch();
  Tape tape;
  tape.gradient(network.loss(x), exact);
  return diagnostics.layers().at(0);
}
// [/watch]

struct Curves {
  std::string name;
  std::vector<nn::LayerReport> reports;  // at the start, and after training
  double error = 1;                      // after training
};

template <class L>
Curves curves_of(const std::string& name, const Settings& s,
                 const typename L::Options& options = {}) {
  const Params params(static_cast<std::uint64_t>(s.seed));
  const RecallNetwork<L> network(params, s.units, options);
  Curves curves{name, {look_into<L>(params, s, options)}};
  if (s.train == 0) return curves;

  optim::Adam adam(params, {.learning_rate = s.learning_rate});
  Rng rng(static_cast<std::uint64_t>(s.seed), 1), test_rng(54321);
  Training training(params, adam, rng, {.epochs = 5});
  while (training.next()) {
    for (Index step = 0; step < s.train; ++step) {
      const Tensor x = draw_marked(s.train_length, s.rows, rng);
      Tape tape;
      const Tensor loss = network.loss(x);
      Gradients gradients = tape.gradient(loss, params);
      optim::clip_by_norm(gradients, 1);
      adam.step(gradients);
      training.step(step, s.train, loss.item());
    }
    curves.error = network.loss(draw_marked(s.train_length, 500, test_rng)).item();
    training.end_epoch(curves.error, fmt::format("{}, test {:.4f}", name, curves.error));
  }
  curves.reports.push_back(look_into<L>(params, s, options));
  return curves;
}

void print(const std::vector<Curves>& all, std::size_t when, const Settings& s) {
  const auto line = [&](const std::string& title, auto cell) {
    fmt::print("{:<16}", title);
    for (const Curves& curves : all) fmt::print("{:>16}", cell(curves, curves.reports[when]));
    fmt::print("\n");
  };
  line(when == 0 ? "at the start" : "after training",
       [](const Curves& curves, auto&) { return curves.name; });
  for (const Index back : {0, 10, 50, 100, 199, 500, 999})
    if (back < s.length)
      line(back == 0 ? "t = T" : fmt::format("t = T - {}", back), [&](auto&, auto& report) {
        const double norm = report.gradient_norms[static_cast<std::size_t>(s.length - 1 - back)];
        return norm == 0 ? std::string("0") : fmt::format("{:.1e}", norm);
      });
  line("|Jacobian|", [](auto&, const nn::LayerReport& report) {
    return fmt::format("{:.2f}", std::ranges::max(report.jacobian_norms));
  });
  line("median tau", [](auto&, const nn::LayerReport& report) {
    const auto& tau = report.time_constants;
    return tau ? fmt::format("{:.1f} steps", tau->median) : "-";
  });
  if (when > 0)
    line("squared error",
         [](const Curves& curves, auto&) { return fmt::format("{:.4f}", curves.error); });
  fmt::print("\n");
}

// Thin lines are those of new networks, the thick ones of trained networks.
void draw(const std::vector<Curves>& all, const std::string& path) {
  html::Chart chart;
  chart.title = "|dL/dh_t| for a loss of the last step";
  chart.x = "steps before the loss";
  chart.y = "|dL/dh_t|";
  chart.logarithmic = true;
  for (const Curves& curves : all)
    for (std::size_t when = 0; when < curves.reports.size(); ++when) {
      const bool is_last = when + 1 == curves.reports.size();
      std::vector<double> norms = curves.reports[when].gradient_norms;
      std::ranges::reverse(norms);
      chart.curves.push_back(
          html::curve(curves.name + (is_last ? "" : ", new"), norms, 0, !is_last));
    }
  nn::write_file(path, html::picture(chart));
}

void run(const Settings& s) {
  if (!s.chart.empty()) const nn::AtomicFile can_be_written(s.chart);  // or it throws, before work
  std::vector<Curves> all{curves_of<nn::Rnn>("RNN", s), curves_of<nn::Gru>("GRU", s)};
  for (const double bias : {0, 1, 3})
    all.push_back(
        curves_of<nn::Lstm>(fmt::format("LSTM, bias {}", bias), s, {.forget_bias = bias}));
  for (std::size_t when = 0; when < all[0].reports.size(); ++when) print(all, when, s);
  if (!s.chart.empty()) draw(all, s.chart);
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("gradient_flow",
                  "How gradients flow back through time in an RNN, a GRU and LSTMs.");
  program.option("--length", s.length, "steps of a sequence", 2);
  program.option("--units", s.units, "of each network");
  program.option("--rows", s.rows, "sequences of a step");
  program.option("--train", s.train, "steps of each of 5 epochs; 0: new networks alone", 0);
  program.option("--train-length", s.train_length, "steps of the sequences in training");
  program.option("--learning-rate", s.learning_rate, "of Adam");
  program.option("--seed", s.seed, "of initial values and data", 0);
  program.option("--chart", s.chart, "file for the curves, as SVG");
  return program.run(argc, argv, [&] { run(s); });
}
