#include "trainer.h"

#include <algorithm>
#include <cmath>
#include <new>

#include <reel/nn/files/atomic_file.h>

#include "report_page.h"

namespace reel::char_lm {

Diverged diverged(const std::string& how, Index step, Saves& saves, const RunDirectory& run,
                  const Settings& settings) {
  const Index saved_step = saves.saved_step();
  const std::string kept = saved_step == 0 ? "nothing was saved yet"
                                           : fmt::format("{} keeps the state of step {}",
                                                         run.model_file().str(), saved_step);
  const bool may_help = saved_step > 0 && settings.on_nan == "stop";
  return {fmt::format("step {}: {}, so training stopped; {}; {}try a smaller --lr or --clip in a "
                      "new run",
                      step, how, kept,
                      may_help ? "go on with --resume --on-nan rollback or skip, or " : ""),
          how, step};
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

}  // namespace reel::char_lm
