#include "report_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numbers>

#include "../support/html.h"

namespace reel::char_lm {
namespace {

using html::Chart;
using html::Curve;
using html::Point;
using Runs = std::vector<ReportedRun>;

constexpr std::size_t most_layers = 8;
constexpr double bits = 1 / std::numbers::ln2;

double step_of(const Metrics& line) { return static_cast<double>(line.step); }
double minutes_of(const Metrics& line) { return line.elapsed_s / 60; }

template <class X, class Y>
std::vector<Point> points(const std::vector<Metrics>& lines, X x, Y y) {
  std::vector<Point> all;
  for (const Metrics& line : lines) all.push_back({x(line), y(line)});
  return all;
}

// Lines after 100 steps, or of epochs that are shorter than that.
const std::vector<Metrics>& lines_of(const ReportedRun& run) {
  return run.hundreds.size() > 1 ? run.hundreds : run.epochs;
}

// An exponential moving average that begins with the plain mean.
std::vector<Point> smoothed(const std::vector<Point>& raw) {
  constexpr double keep = 0.7;
  std::vector<Point> result;
  double sum = 0, weight = 0;
  for (const Point& p : raw) {
    sum = keep * sum + p.y;
    weight = keep * weight + 1;
    result.push_back({p.x, sum / weight});
  }
  return result;
}

std::vector<Point> training_loss(const ReportedRun& run) {
  return points(lines_of(run), step_of, [](const Metrics& line) { return line.train_loss; });
}

template <class X>
std::vector<Point> validation_loss(const ReportedRun& run, X x) {
  std::vector<Point> all;
  for (const Metrics& line : run.epochs)
    if (line.valid_loss) all.push_back({x(line), *line.valid_loss});
  return all;
}

std::optional<Point> lowest(const std::vector<Point>& all) {
  const auto least = std::ranges::min_element(all, {}, &Point::y);
  return least == all.end() ? std::nullopt : std::optional(*least);
}

template <class F>
std::vector<Curve> of_each(const Runs& runs, F&& f) {
  std::vector<Curve> curves;
  for (const ReportedRun& run : runs) curves.push_back({run.name, f(run)});
  return curves;
}

Chart loss_chart(const std::string& id, const std::string& title, const std::string& caption,
                 const std::string& x, const std::string& unit) {
  return {.id = id,
          .title = title,
          .caption = caption,
          .x = x,
          .y = "nats per " + unit,
          .curves = {},
          .right_factor = bits,
          .right = "bits"};
}

Chart loss_of(const ReportedRun& run) {
  const bool by_hundred = run.hundreds.size() > 1;
  Chart chart = loss_chart("loss-chart", "Loss",
                           by_hundred ? "Training loss is the mean over 100 steps, and smoothed by "
                                        "an exponential moving average with factor 0.7; validation "
                                        "loss is that after an epoch."
                                      : "Training loss is the mean over an epoch, validation loss "
                                        "that after it.",
                           "step", std::string(unit_of(run.config.settings.level).name));
  const std::vector<Point> raw = training_loss(run);
  if (by_hundred) chart.curves.push_back({"training, 100 steps", raw, true});
  chart.curves.push_back(
      {by_hundred ? "training, smoothed" : "training, an epoch", by_hundred ? smoothed(raw) : raw});
  chart.curves.push_back({"validation", validation_loss(run, step_of)});
  chart.best = lowest(chart.curves.back().points);
  return chart;
}

std::vector<Point> clipped_share(const ReportedRun& run) {
  std::vector<Point> all;
  for (const Metrics& line : lines_of(run))
    if (line.clip && line.clip->steps > 0) all.push_back({step_of(line), line.clip->share()});
  return all;
}

const nn::LayerReport* layer_named(const Metrics& line, const std::string& name) {
  const auto& layers = line.diagnosis->layers;
  const auto found = std::ranges::find(layers, name, &nn::LayerReport::name);
  return found == layers.end() ? nullptr : &*found;
}

std::vector<Point> saturated(const ReportedRun& run, const std::string& layer, std::size_t gate) {
  std::vector<Point> all;
  for (const Metrics& line : run.diagnosed)
    if (const nn::LayerReport* found = layer_named(line, layer);
        found && gate < found->gates.size())
      all.push_back({step_of(line), found->gates[gate].saturated});
  return all;
}

// The share of the values in each bin, at its middle.
std::vector<Point> histogram(const nn::GateReport& gate) {
  double sum = 0;
  for (const Index count : gate.histogram) sum += static_cast<double>(count);
  std::vector<Point> all;
  const double bin = (1 - gate.lowest) / static_cast<double>(gate.histogram.size());
  for (std::size_t i = 0; i < gate.histogram.size() && sum > 0; ++i)
    all.push_back({gate.lowest + bin * (static_cast<double>(i) + 0.5),
                   static_cast<double>(gate.histogram[i]) / sum});
  return all;
}

std::vector<Chart> gate_charts(const ReportedRun& run, const nn::LayerReport& layer,
                               const std::string& prefix) {
  Chart over_time{.id = prefix + "-saturated",
                  .title = layer.name + ": saturated gates",
                  .caption = "Share of a gate's values less than 0.05 from an end of its range.",
                  .x = "step",
                  .y = "share",
                  .curves = {}};
  Chart values{.id = prefix + "-gates",
               .title = layer.name + ": values of the gates",
               .caption = "Share of the values in each of 20 bins, in the last step looked into.",
               .x = "value",
               .y = "share",
               .curves = {}};
  for (std::size_t i = 0; i < std::min(layer.gates.size(), html::most_curves); ++i) {
    over_time.curves.push_back({layer.gates[i].name, saturated(run, layer.name, i)});
    values.curves.push_back({layer.gates[i].name, histogram(layer.gates[i])});
  }
  return {over_time, values};
}

}  // namespace

std::vector<Chart> loss_charts(const Runs& runs) {
  if (runs.size() == 1) return {loss_of(runs.front())};
  const std::string unit = unit_name(runs);
  Chart training =
      loss_chart("training-chart", "Training loss",
                 "Smoothed by an exponential moving average with factor 0.7.", "step", unit);
  training.curves = of_each(runs, [](const auto& run) { return smoothed(training_loss(run)); });
  Chart validation =
      loss_chart("validation-chart", "Validation loss", "After each epoch.", "step", unit);
  validation.curves = of_each(runs, [](const auto& run) { return validation_loss(run, step_of); });
  Chart by_time = loss_chart("time-chart", "Validation loss by time",
                             "After each epoch, by the time since the run began, without "
                             "interruptions.",
                             "minutes", unit);
  by_time.curves = of_each(runs, [](const auto& run) { return validation_loss(run, minutes_of); });
  std::vector<Point> all;
  for (const Curve& curve : validation.curves)
    all.insert(all.end(), curve.points.begin(), curve.points.end());
  validation.best = lowest(all);
  return {training, validation, by_time};
}

std::vector<Chart> step_charts(const Runs& runs) {
  const auto each = [&](auto y) {
    return of_each(runs, [&](const auto& run) { return points(lines_of(run), step_of, y); });
  };
  Chart norm{.id = "norm-chart",
             .title = "Norm of the gradient",
             .caption = "At the step of the line, before clipping.",
             .x = "step",
             .y = "norm",
             .curves = each([](const Metrics& line) { return line.grad_norm; }),
             .logarithmic = true};
  const double clip = runs.front().config.settings.clip;
  const auto& norms = norm.curves.front().points;
  if (runs.size() == 1 && clip > 0 && !norms.empty())
    norm.curves.push_back({"limit", {{norms.front().x, clip}, {norms.back().x, clip}}});
  return {{.id = "rate-chart",
           .title = "Learning rate",
           .caption = "At each line of the metrics.",
           .x = "step",
           .y = "learning rate",
           .curves = each([](const Metrics& line) { return line.lr; })},
          norm,
          {.id = "clipped-chart",
           .title = "Clipped steps",
           .caption =
               "Share of the steps of each line of the metrics whose gradient exceeded the limit.",
           .x = "step",
           .y = "share",
           .curves = of_each(runs, clipped_share)}};
}

std::vector<Chart> speed_charts(const Runs& runs) {
  return {{.id = "speed-chart",
           .title = "Speed of training",
           .caption = "Without validation.",
           .x = "step",
           .y = unit_name(runs) + "s per second",
           .curves = of_each(runs, [](const auto& run) {
             return points(lines_of(run), step_of,
                           [](const Metrics& line) { return line.chars_per_s; });
           })}};
}

std::vector<Chart> layer_charts(const ReportedRun& run, const std::string& prefix) {
  if (run.diagnosed.empty()) return {};
  const auto& layers = run.diagnosed.back().diagnosis->layers;
  Chart gradients{.id = prefix + "-gradients",
                  .title = "Gradient through time",
                  .caption =
                      "|dL/dh| at each time step of the gradient, of the last step looked "
                      "into.",
                  .x = "time step",
                  .y = "norm",
                  .curves = {},
                  .logarithmic = true};
  Chart jacobians{.id = prefix + "-jacobians",
                  .title = "Jacobian of a step",
                  .caption =
                      "Its largest singular value, the mean of those that were taken: below "
                      "1 gradients vanish, above it they may grow.",
                  .x = "step",
                  .y = "largest singular value",
                  .curves = {}};
  std::vector<Chart> charts;
  const auto count = std::min(layers.size(), most_layers);
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<Point> norms, largest;
    for (const double norm : layers[i].gradient_norms)
      norms.push_back({static_cast<double>(norms.size() + 1), norm});
    for (const Metrics& line : run.diagnosed)
      if (const auto* layer = layer_named(line, layers[i].name);
          layer && !layer->jacobian_norms.empty()) {
        double sum = 0;
        for (const double norm : layer->jacobian_norms) sum += norm;
        largest.push_back({step_of(line), sum / static_cast<double>(layer->jacobian_norms.size())});
      }
    gradients.curves.push_back({layers[i].name, norms});
    jacobians.curves.push_back({layers[i].name, largest});
    const auto of_gates = gate_charts(run, layers[i], fmt::format("{}-layer{}", prefix, i));
    charts.insert(charts.end(), of_gates.begin(), of_gates.end());
  }
  charts.insert(charts.begin(), {gradients, jacobians});
  return charts;
}

std::string time_constants(const ReportedRun& run) {
  html::Table table("Time constants of the units in steps, in the last step looked into",
                    {"layer", "5 % of the units below", "median", "95 % below"});
  if (!run.diagnosed.empty())
    for (const nn::LayerReport& layer : run.diagnosed.back().diagnosis->layers)
      if (const auto& tau = layer.time_constants)
        table.add({layer.name, fmt::format("{:.4g}", tau->p5), fmt::format("{:.4g}", tau->median),
                   fmt::format("{:.4g}", tau->p95)});
  return table.empty() ? "" : table.str();
}

}  // namespace reel::char_lm
