#pragma once

#include <string>
#include <vector>

#include "../support/chart.h"
#include "reported_run.h"

/// The charts of a report. With several runs a chart has a curve of each.
namespace reel::char_lm {

/// Loss in training and validation.
std::vector<html::Chart> loss_charts(const std::vector<ReportedRun>& runs);
/// Learning rate, norm of the gradient, share of the steps whose gradient was clipped.
std::vector<html::Chart> step_charts(const std::vector<ReportedRun>& runs);
std::vector<html::Chart> speed_charts(const std::vector<ReportedRun>& runs);

/// Gradients through time and gates, if the run was diagnosed; `prefix` begins the charts' ids.
std::vector<html::Chart> layer_charts(const ReportedRun& run, const std::string& prefix);
/// A table of the layers' time constants in the last line with a diagnosis, as HTML; or nothing.
std::string time_constants(const ReportedRun& run);

}  // namespace reel::char_lm
