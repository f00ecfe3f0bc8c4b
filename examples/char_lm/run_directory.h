#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <reel/autograd/error.h>
#include <reel/nn/files/location.h>
#include <reel/optim/run_state.h>
#include <reel/optim/step_files.h>

#include "run_config.h"

namespace reel::char_lm {

/// The content of a regular file. Throws FileError if it has more than `longest` bytes.
std::string content_of(const nn::Location& where, std::size_t longest);

/// The directory of a run: model.safetensors (the weights and the whole state of the training),
/// best.safetensors (the same after the best epoch), config.json, metrics.jsonl, machines.jsonl,
/// report.html, a vocabulary.txt that does not fit into config.json and, if there are any,
/// samples.jsonl, kept states in the folder steps and events in the folder tensorboard. All errors
/// about its files are FileErrors with the path.
class RunDirectory {
 public:
  explicit RunDirectory(std::filesystem::path path) : path_(std::move(path)) {}

  /// Its path: as given or, once it is locked, its current location if it has been moved since.
  std::filesystem::path path() const { return directory_ ? directory_->path_now() : path_; }
  nn::Location model_file() const { return file("model.safetensors"); }
  nn::Location best_file() const { return file("best.safetensors"); }
  nn::Location step_file(Index step) const {
    return file(fmt::format("{}/{}", kept_folder, optim::StepFiles::name_of(step)));
  }
  nn::Location config_file() const { return file("config.json"); }
  nn::Location vocabulary_file() const { return file("vocabulary.txt"); }
  nn::Location metrics_file() const { return file("metrics.jsonl"); }
  nn::Location samples_file() const { return file("samples.jsonl"); }
  nn::Location machines_file() const { return file("machines.jsonl"); }
  nn::Location report_file() const { return file("report.html"); }

  /// Throws if there is a file of a run in it.
  void require_vacant() const;
  /// Throws unless there is a run in it.
  void require_run() const;

  /// Creates the directory if necessary.
  void make();
  /// Locks it against other training processes for the lifetime of this object, and keeps it open:
  /// from here on all files are in this directory, even if it is renamed and another one takes its
  /// name. Throws if another process has locked it.
  void lock();
  /// Removes temporary files that a killed process left behind. Call only while holding the lock.
  void remove_leftovers() const;
  /// Removes the files of the run, and the directories that `make` created if they are empty then.
  void undo() const;
  /// Writes config.json, after the vocabulary if that has a file of its own.
  void write(const RunConfig& config) const;
  RunConfig read_config() const;

  /// The next unused name for a file of events in its folder tensorboard, which is created.
  nn::Location new_event_file() const;

  /// Whether training was stopped between its first file and its first checkpoint.
  bool never_saved() const;
  /// Calls f, which reads a checkpoint; the name of its file is added to an Error, except to one
  /// about memory.
  template <class F>
  static decltype(auto) explain(const nn::Location& where, F&& f) {
    try {
      return f();
    } catch (const MemoryError&) {
      throw;
    } catch (const Error& error) {
      throw FileError(fmt::format("{}: {}", where.str(), error.message()));
    }
  }
  /// The file that --checkpoint names: "last", "best" or the number of a step that is kept. Throws
  /// FileError if there is no best or no such step, saying which there are.
  nn::Location checkpoint_file(const std::string& name) const;
  /// The newest kept step that is at most `limit`.
  std::optional<Index> newest_step(Index limit) const;

  /// The checkpoint in one of these files, if it matches this configuration: it was saved with it,
  /// has the parameters of its model, and could be a state of its training.
  optim::RunState load(const RunConfig& config, const nn::Location& where) const;
  /// Writes a checkpoint, with the version of Reel; writes the configuration again if it was
  /// deleted meanwhile.
  void save(const nn::Location& where, const RunConfig& config, optim::RunState checkpoint) const;
  /// Writes one to keep, and removes the oldest so that `keep` are left.
  void save_step(Index step, int keep, const RunConfig& config, optim::RunState checkpoint) const;
  /// Throws ValueError if another version of Reel wrote the checkpoint.
  static void require_same_version(const optim::RunState& checkpoint);

 private:
  // What a run may have.
  std::vector<nn::Location> files() const {
    return {model_file(),   best_file(),     config_file(), vocabulary_file(), metrics_file(),
            samples_file(), machines_file(), report_file(), file(kept_folder), file(events_folder)};
  }
  bool is_described(const RunConfig& config) const {
    return config_file().exists() && (has_listing(config.settings) || vocabulary_file().exists());
  }
  static constexpr const char *events_folder = "tensorboard", *kept_folder = "steps";

  nn::Location make_folder(const char* name) const;
  template <class Write>
  void write_checkpoint(const RunConfig& config, optim::RunState& checkpoint, Write&& write) const;

  nn::Location file(const std::string& name) const {
    return directory_ ? nn::Location(*directory_, name) : nn::Location(path_ / name);
  }

  std::filesystem::path path_;
  std::vector<std::filesystem::path>
      made_;                                // the directories that `make` created, inner ones first
  std::optional<nn::Directory> directory_;  // once it is locked
};

}  // namespace reel::char_lm
