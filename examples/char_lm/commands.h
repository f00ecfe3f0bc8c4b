#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "settings.h"
#include "training_log.h"

/// The commands. Each returns the program's exit code, and throws reel::Error on failure.
namespace reel::char_lm {

/// What a training writes besides its metrics. Nothing of it changes the training, and all of it
/// may differ whenever a run is resumed.
struct Extras {
  bool diagnose = false;     ///< look into the layers for metrics.jsonl
  int sample_every = 0;      ///< steps between two samples; 0: none
  int sample_length = 200;   ///< symbols of a sample
  bool tensorboard = false;  ///< events for TensorBoard
};

struct TrainOptions {
  std::filesystem::path run;
  std::optional<std::filesystem::path> text;
  Settings settings;
  std::set<std::string> given;  ///< the names of the settings that the user passed
  std::optional<int> threads;
  bool resume = false;
  LogKind log = LogKind::text;
  Extras extras;
  std::string program;  ///< argv[0], for suggested commands
};
/// Exits with 128 + the signal number after SIGINT, SIGTERM, SIGHUP or SIGXCPU.
int train(const TrainOptions& options);

struct SampleOptions {
  std::filesystem::path run;
  int length = 500;
  std::string prime;
  double temperature = 0.8;
  int top_k = 0;
  double top_p = 1;
  std::uint64_t seed = 123;
  bool interactive = false;
};
int sample(const SampleOptions& options);

struct EvalOptions {
  std::filesystem::path run, text;
  bool per_char = false, json = false;
};
int eval(const EvalOptions& options);

struct InfoOptions {
  std::filesystem::path run;
  bool json = false;
};
int info(const InfoOptions& options);

/// More could not be told apart in a chart.
constexpr std::size_t most_runs = 24;

struct ReportOptions {
  std::vector<std::filesystem::path> runs;
  std::optional<std::filesystem::path> output;  ///< report.html in the first run
  bool profile = false;                         ///< measure a step's ops here and now
};
int report(const ReportOptions& options);

struct GradcheckCommand {
  std::optional<std::filesystem::path> run;  ///< the run whose model to check, instead of a new one
  Settings settings{.model = "lstm", .hidden = 4, .embed = 3, .seq_len = 4, .batch = 2};
  std::set<std::string> given;  ///< the names of the model options that the user passed
  int vocabulary = 5;
  int order = 1;
  bool fast = false, json = false;
};
/// Exits with 0 if every gradient is right, otherwise with 1.
int gradcheck(const GradcheckCommand& options);

}  // namespace reel::char_lm
