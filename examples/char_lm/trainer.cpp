#include "trainer_parts.h"

#include <algorithm>
#include <cmath>
#include <new>

#include <reel/nn/files/atomic_file.h>
#include <reel/nn/init.h>
#include <reel/nn/initialize.h>

#include "model.h"
#include "report_page.h"

namespace reel::char_lm {

datasets::Window last_steps(const datasets::Windows& windows, Index window, Index steps) {
  if (steps == 0) return {};
  std::vector<Tensor> inputs, targets;
  const Index length = windows.seq_len(), first = window - (steps + length - 1) / length;
  for (Index i = first; i < window; ++i) {
    const auto [x, y] = windows[i];
    inputs.push_back(x);
    targets.push_back(y);
  }
  const Index end = (window - first) * length;
  const auto last = [&](const std::vector<Tensor>& all) {
    return slice(concat(all, 0), 0, end - steps, end);
  };
  return {last(inputs), last(targets)};
}

nn::NamedTensors by_name(const Gradients& gradients) {
  nn::NamedTensors named;
  gradients.each([&](const std::shared_ptr<ParamEntry>& entry, const Tensor& gradient) {
    named.tensors[entry->name] = gradient;
  });
  return named;
}

Position position_of(const Progress& at, const Settings& settings, Index steps_per_epoch,
                     double learning_rate) {
  return {.step = at.step,
          .steps = settings.epochs * steps_per_epoch,
          .epoch = static_cast<int>(at.epoch),
          .epochs = settings.epochs,
          .lr = learning_rate,
          .unit = unit_of(settings.level).brief};
}

void write_report(const RunDirectory& run, const RunConfig& config, const Progress& at,
                  const Params& params, TrainingLog& log) {
  try {
    const ReportedRun now = reported_run(run, config, at, nn::from_params(params));
    nn::write_file(run.report_file(), report_page({now}));
  } catch (const Error& error) {
    log.note(fmt::format("note   there is no new report: {}", error.message()));
  } catch (const std::bad_alloc&) {
    log.note("note   there is no new report: not enough memory");
  }
}

void initialize(const Params& params, const Settings& s) {
  if (s.init_uniform > 0) nn::initialize(params, {{"*", nn::init::uniform(s.init_uniform)}});
}

bool is_finite(const Tensor& x) {
  return dispatch_real(x.dtype(), [&]<class T>() {
    return std::ranges::all_of(x.values<T>(), [](T value) { return std::isfinite(value); });
  });
}

double norm_of(const Tensor& x) {
  return dispatch_real(x.dtype(), [&]<class T>() {
    double sum = 0;
    for (const T value : x.values<T>()) sum += double{value} * double{value};
    return std::sqrt(sum);
  });
}

std::string first_not_finite(const nn::NamedTensors& tensors) {
  const auto found = std::ranges::find_if(tensors.tensors,
                                          [](const auto& item) { return !is_finite(item.second); });
  return found == tensors.tensors.end() ? "" : found->first;
}

void take_weights(const StartWeights& start, const Params& params) {
  nn::load_weights(start.arrays, start.order, params, {.round = true});
  if (start.rows.empty()) return;
  const Tensor rows = tensor({std::ssize(start.rows)}, start.rows);
  const std::vector<Param> all = params.list();
  const bool has_vectors =
      std::ranges::any_of(all, [](const Param& p) { return p.name() == "embed.w"; });
  for (Param p : all) {
    // What belongs to a symbol: rows of its vector and of the head, or columns of one-hot inputs.
    if (p.name() == "embed.w" || p.name() == "head.w") p.set(gather_rows(p.value(), rows));
    if (p.name() == "head.b") p.set(reshape(gather_rows(expand(p.value(), 1), rows), p.shape()));
    if (p.name() == "rnn.0.w_ih" && !has_vectors)
      p.set(transpose(gather_rows(transpose(p.value()), rows)));
  }
}

}  // namespace reel::char_lm
