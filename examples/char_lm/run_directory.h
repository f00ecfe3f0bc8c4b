#pragma once

#include <filesystem>
#include <string>

#include <reel/datasets/text.h>
#include <reel/optim/run_state.h>

#include "corpus.h"
#include "settings.h"

namespace reel::char_lm {

/// What config.json says.
struct RunConfig {
  Settings settings;
  TextId text;
  datasets::Vocabulary vocabulary;

  /// The part that can never change, as text: all but the number of epochs and the text's path.
  std::string identity() const;
};

/// The directory of a run: model.safetensors (the weights and the whole state of the training),
/// config.json and metrics.jsonl. All that can go wrong with its files is a FileError with the
/// path.
class RunDirectory {
 public:
  explicit RunDirectory(std::filesystem::path path) : path_(std::move(path)) {}

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path model_file() const { return path_ / "model.safetensors"; }
  std::filesystem::path config_file() const { return path_ / "config.json"; }
  std::filesystem::path metrics_file() const { return path_ / "metrics.jsonl"; }

  /// Throws unless there is no file of a run in it.
  void require_vacant() const;
  /// Throws unless there is a run in it.
  void require_run() const;

  /// Makes the directory if need be.
  void make() const;
  /// Removes what writing left half done when a process was killed. Only for who has the lock.
  void remove_leftovers() const;
  void write(const RunConfig& config) const;
  RunConfig read_config() const;

  /// Whether training was stopped between its first file and its first checkpoint.
  bool never_saved() const;
  /// Calls f, which looks into the checkpoint; an Error gets the name of its file.
  template <class F>
  decltype(auto) explain(F&& f) const {
    try {
      return f();
    } catch (const Error& error) {
      throw FileError(model_file().string() + ": " + error.what());
    }
  }
  /// The checkpoint, if it belongs to this configuration.
  optim::RunState load(const RunConfig& config) const;
  void save(const RunConfig& config, optim::RunState checkpoint) const;

 private:
  std::filesystem::path path_;
};

/// Keeps a second process from training in the same directory. Lives as long as the training.
class RunLock {
 public:
  /// Throws FileError when another process has it.
  explicit RunLock(const RunDirectory& run);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace reel::char_lm
