#pragma once

#include <string>
#include <vector>

#include <reel/nn/named_tensors.h>

#include "machine.h"
#include "metrics.h"
#include "progress.h"
#include "run_directory.h"
#include "samples.h"
#include "step_profile.h"

namespace reel::char_lm {

/// A parameter as the report shows it.
struct ParameterRow {
  std::string name, shape;
  Index count = 0;
  double norm = 0;
};

/// What a report shows of a run, in bounded memory: of longer files, lines that are evenly spread.
struct ReportedRun {
  std::string name;  ///< of the run's directory
  RunConfig config;
  Progress progress;
  std::vector<ParameterRow> parameters = {};
  std::vector<Start> starts = {};
  std::vector<Metrics> hundreds = {},
                       epochs = {};     ///< without diagnoses: after 100 steps, after an epoch
  std::vector<Metrics> diagnosed = {};  ///< with diagnoses, of which the last alone is complete
  std::vector<Sample> samples = {};
  Index sample_count = 0;        ///< in the file
  std::vector<OpTime> ops = {};  ///< if they were measured
};

/// What a symbol is called in these runs: "character"; "symbol" if their levels differ.
std::string unit_name(const std::vector<ReportedRun>& runs);

/// Reads metrics, samples and machines of a run whose state is known. Throws FileError.
ReportedRun reported_run(const RunDirectory& run, const RunConfig& config, const Progress& progress,
                         const nn::NamedTensors& params);
/// The same of a run as it is saved.
ReportedRun reported_run(const RunDirectory& run);

}  // namespace reel::char_lm
