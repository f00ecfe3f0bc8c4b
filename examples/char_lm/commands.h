#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <reel/nn/exchange/weights.h>

#include "recipes.h"
#include "search_space.h"
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

/// Seconds on a monotonic clock.
inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Where a training stops before its end, saved so that it goes on as if it had not.
struct Limits {
  Index epoch = std::numeric_limits<Index>::max();            ///< after this one
  double deadline = std::numeric_limits<double>::infinity();  ///< in seconds_now()
};

/// Weights of another framework that a run begins with.
struct StartWeights {
  nn::NamedTensors arrays;
  nn::GateOrder order = nn::GateOrder::torch;
  /// The row in these of each token's symbol; empty if they have Reel's order.
  std::vector<std::int32_t> rows = {};
};

struct TrainOptions {
  std::filesystem::path run;
  std::optional<std::filesystem::path> text;
  Settings settings;
  Given given;                     ///< the names of the settings that the user passed
  const Recipe* recipe = nullptr;  ///< if there is one, what the others are
  std::optional<int> threads;
  bool resume = false;
  bool force = false;  ///< resume a run of another version of Reel
  /// If there are any, the run begins with them, and is not trained yet.
  const StartWeights* start = nullptr;
  LogKind log = LogKind::text;
  Extras extras;
  Limits limits = {};
  std::string program;  ///< argv[0], for suggested commands
};
/// Exits with 128 + the signal number after SIGINT, SIGTERM, SIGHUP or SIGXCPU.
int train(const TrainOptions& options);

struct TuneOptions {
  std::filesystem::path run;
  std::optional<std::filesystem::path> text;
  SearchSpace space;
  const Recipe* recipe = nullptr;  ///< of what is neither given nor searched
  std::optional<int> trials;       ///< required for a new search
  std::optional<int> threads;
  double time_budget = std::numeric_limits<double>::infinity();  ///< in seconds
  bool resume = false, force = false;
  LogKind log = LogKind::text;
  std::string program;  ///< argv[0], for suggested commands
};
/// Exits with 0 if the search is finished or its time is over, and after a signal as `train` does.
int tune(const TuneOptions& options);

struct SampleOptions {
  std::filesystem::path run;
  std::string checkpoint = "last";
  int length = 500;
  std::string prime;
  double temperature = 0.8;
  int top_k = 0;
  double top_p = 1;
  double min_p = 0;
  double repetition_penalty = 1;
  std::uint64_t seed = 123;
  bool interactive = false;
};
int sample(const SampleOptions& options);

struct EvalOptions {
  std::filesystem::path run;
  std::optional<std::filesystem::path> text;
  std::optional<std::string> part;  ///< "train", "valid" or "test": a part of the run's own text
  std::string checkpoint = "last";
  bool per_char = false, json = false;
};
int eval(const EvalOptions& options);

struct InfoOptions {
  std::filesystem::path run;
  std::string checkpoint = "last";
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

/// A model for other frameworks; see nn/exchange.
struct ExportOptions {
  std::filesystem::path run;
  std::string checkpoint = "last";
  std::optional<std::filesystem::path> onnx, torch, keras, flax;
};
int export_model(const ExportOptions& options);

struct ImportOptions {
  std::filesystem::path weights, run;
  std::optional<std::filesystem::path> text, symbols;
  std::optional<std::string> from;  ///< "torch", "keras", "flax" or "reel"
  std::vector<std::pair<std::string, std::string>> renames;
  Settings settings;
  Given given;
};
int import_model(const ImportOptions& options);

struct GradcheckCommand {
  std::optional<std::filesystem::path> run;  ///< the run whose model to check, instead of a new one
  Settings settings{.model = "lstm", .hidden = 4, .embed = 3, .seq_len = 4, .batch = 2};
  Given given;  ///< the names of the model options that the user passed
  int vocabulary = 5;
  int order = 1;
  bool fast = false, json = false;
};
/// Exits with 0 if every gradient is right, otherwise with 1.
int gradcheck(const GradcheckCommand& options);

}  // namespace reel::char_lm
