#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include <reel/autograd/error.h>
#include <reel/nn/files/location.h>
#include <reel/optim/run_state.h>

#include "run_config.h"

namespace reel::char_lm {

/// The directory of a run: model.safetensors (the weights and the whole state of the training),
/// config.json and metrics.jsonl. All that can go wrong with its files is a FileError with the
/// path.
class RunDirectory {
 public:
  explicit RunDirectory(std::filesystem::path path) : path_(std::move(path)) {}

  /// Where it is: as it was named or, once it is locked, where it has been moved to since.
  std::filesystem::path path() const { return directory_ ? directory_->path_now() : path_; }
  nn::Location model_file() const { return file("model.safetensors"); }
  nn::Location config_file() const { return file("config.json"); }
  nn::Location metrics_file() const { return file("metrics.jsonl"); }

  /// Throws unless there is no file of a run in it.
  void require_vacant() const;
  /// Throws unless there is a run in it.
  void require_run() const;

  /// Makes the directory if need be.
  void make() const;
  /// Keeps other processes from training in it for as long as this lives, and stays with it: from
  /// here on its files are those of this directory, also when it is renamed and another one gets
  /// its name. Throws when another process has locked it.
  void lock();
  /// Removes temporary files that a killed process left behind. Call only while holding the lock.
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
      throw FileError(model_file().str() + ": " + error.what());
    }
  }
  /// The checkpoint, if it belongs to this configuration: it was saved with it, has the parameters
  /// of its model, and only finite numbers.
  optim::RunState load(const RunConfig& config) const;
  void save(const RunConfig& config, optim::RunState checkpoint) const;

 private:
  nn::Location file(const char* name) const {
    return directory_ ? nn::Location(*directory_, name) : nn::Location(path_ / name);
  }

  std::filesystem::path path_;
  std::optional<nn::Directory> directory_;  // once it is locked
};

}  // namespace reel::char_lm
