#include "trainer.h"

#include <algorithm>
#include <cmath>
#include <new>

#include <reel/nn/files/atomic_file.h>

#include "report_page.h"

namespace reel::char_lm {

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

Diverged diverged(const std::string& how, Index step, Index saved_step, const RunDirectory& run) {
  const std::string kept = saved_step == 0 ? "nothing was saved yet"
                                           : fmt::format("{} keeps the state of step {}",
                                                         run.model_file().str(), saved_step);
  const std::string what = fmt::format("step {}: {}", step, how);
  return {fmt::format("{}, so training stopped; {}; try a smaller --lr or --clip in a new run",
                      what, kept),
          what};
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
