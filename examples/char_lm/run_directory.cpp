#include "run_directory.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>
#include <string>

#include <reel/autograd/message.h>
#include <reel/nn/files/atomic_file.h>
#include <reel/nn/files/file.h>
#include <reel/version.h>

#include "checkpoint.h"
#include "words.h"

namespace reel::char_lm {
namespace {

constexpr const char *identity_key = "config", *version_key = "reel";

// The states that are kept, by step.
std::map<Index, std::filesystem::path> kept_files(const std::filesystem::path& folder) {
  if (!nn::Location(folder).exists()) return {};
  return optim::StepFiles(folder, 1).files();
}

// Also of a file that was never completed: ".step-000100.safetensors.PID-N.tmp".
void remove_kept_leftovers(const std::filesystem::path& folder) {
  constexpr std::string_view extension = ".safetensors";
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator i(folder, error), end; !error && i != end;
       i.increment(error)) {
    const std::string name = i->path().filename().string();
    const std::size_t at = name.find(extension);
    if (name.starts_with(".step-") && at != std::string::npos)
      names.push_back(name.substr(1, at + extension.size() - 1));
  }
  for (const std::string& name : names) nn::AtomicFile::remove_leftovers(folder / name);
}

// A link was there before; what it leads to was created.
void remove(const nn::Location& where) {
  if (!where.is_link()) {
    nn::system::remove(where.directory(), where.name());
    return;
  }
  std::error_code ignored;
  const auto target = std::filesystem::canonical(where.path(), ignored);
  if (!target.empty()) std::filesystem::remove(target, ignored);
}

}  // namespace

std::string content_of(const nn::Location& where, std::size_t longest) {
  nn::File file = nn::File::regular(where, O_RDONLY);
  const auto size = file.size();
  if (size > longest)
    throw FileError(fmt::format("{}: {} bytes are more than the {} that it can have", where.str(),
                                size, longest));
  std::string content(size, '\0');
  content.resize(file.read(std::as_writable_bytes(std::span(content))));
  return content;
}

void RunDirectory::require_vacant() const {
  const auto status = nn::status_of(path_);
  if (status && !status->is_directory())
    throw FileError(short_path(path_) + ": not a directory; give another --run");
  if (vocabulary_file().exists() && !config_file().exists())
    throw FileError(
        vocabulary_file().str() +
        ": it is of a run that ended as it began, or no run's; remove it, or give another --run");
  for (const auto& file : files())
    if (file.exists())
      throw FileError(fmt::format(
          "{}: there is a run in it already; go on with it (--resume), or give another --run",
          short_path(path_)));
}

void RunDirectory::require_run() const {
  if (!nn::Location(path_).exists())
    throw FileError(short_path(path_) + ": there is no such directory; train makes one");
  const auto status = nn::status_of(path_);
  if (status && !status->is_directory())
    throw FileError(short_path(path_) + ": not a directory; give the directory of a run");
  if (!config_file().exists() && !config_file().is_link())
    throw FileError(short_path(path_) +
                    ": there is no run in it (no config.json); train makes one");
}

void RunDirectory::make() {
  std::error_code error;
  for (auto path = path_; !path.empty() && !nn::Location(path).exists(); path = path.parent_path())
    made_.push_back(path);
  std::filesystem::create_directories(path_, error);
  if (error) {
    undo();
    throw FileError(
        fmt::format("{}: cannot make the directory: {}", short_path(path_), error.message()));
  }
}

void RunDirectory::undo() const {
  std::error_code ignored;
  if (directory_) {
    for (const char* folder : {events_folder, kept_folder})
      std::filesystem::remove_all(path() / folder, ignored);
    for (const auto& file : files()) remove(file);
  }
  if (path() != path_) return;  // another directory may have its name
  for (const auto& made : made_) std::filesystem::remove(made, ignored);
}

void RunDirectory::lock() {
  directory_.emplace(path_);
  if (!directory_->lock())
    throw FileError(short_path(path_) + ": another process is training in it");
}

void RunDirectory::remove_leftovers() const {
  for (const auto& file :
       {model_file(), best_file(), config_file(), vocabulary_file(), report_file()})
    nn::AtomicFile::remove_leftovers(file);
  remove_kept_leftovers(path() / kept_folder);
}

void RunDirectory::write(const RunConfig& config) const {
  if (!has_listing(config.settings)) config.vocabulary->save(vocabulary_file());
  nn::write_file(config_file(), config.json());
}

RunConfig RunDirectory::read_config() const {
  require_run();
  const std::string content = content_of(config_file(), longest_config);
  try {
    return parse_config(content, vocabulary_file());
  } catch (const FileError&) {  // about the vocabulary
    throw;
  } catch (const Error& error) {
    throw FileError(fmt::format("{}: {}", config_file().str(), error.message()));
  }
}

nn::Location RunDirectory::make_folder(const char* name) const {
  const nn::Location folder = file(name);
  if (!nn::system::make_directory(folder.directory(), folder.name()) && errno != EEXIST)
    throw FileError(
        fmt::format("{}: cannot make the directory: {}", folder.str(), std::strerror(errno)));
  return folder;
}

// TensorBoard reads the files in the order of their names.
nn::Location RunDirectory::new_event_file() const {
  make_folder(events_folder);
  for (int number = 1;; ++number) {
    nn::Location next = file(fmt::format("{}/events.out.tfevents.{:06}", events_folder, number));
    if (!next.exists() && !next.is_link()) return next;
  }
}

bool RunDirectory::never_saved() const {
  return !model_file().exists() && !metrics_file().exists();
}

nn::Location RunDirectory::checkpoint_file(const std::string& name) const {
  if (name == "last") return model_file();
  if (name == "best") {
    if (!best_file().exists())
      throw FileError(
          fmt::format("{}: there is no best state; it is written after an epoch whose "
                      "validation loss is the lowest so far",
                      best_file().str()));
    return best_file();
  }
  const Index step = std::stoll(name);
  const auto kept = kept_files(path() / kept_folder);
  if (!kept.contains(step)) {
    std::vector<std::string> steps;
    for (const auto& [number, file] : kept) steps.push_back(fmt::format("{}", number));
    throw FileError(fmt::format(
        "{}: step {} is not kept; {}", short_path(path_ / kept_folder), step,
        steps.empty() ? "train keeps some with --keep" : "there are " + listed(steps, 8)));
  }
  return step_file(step);
}

std::optional<Index> RunDirectory::newest_step(Index limit) const {
  const auto kept = kept_files(path() / kept_folder);
  const auto after = kept.upper_bound(limit);
  return after == kept.begin() ? std::nullopt : std::optional(std::prev(after)->first);
}

optim::RunState RunDirectory::load(const RunConfig& config, const nn::Location& where) const {
  optim::RunState checkpoint = optim::load_run_state(where);
  const auto identity = checkpoint.texts.find(identity_key);
  if (identity == checkpoint.texts.end() || identity->second != config.identity())
    throw FileError(fmt::format("{}: it is not the model of the run that {} describes", where.str(),
                                config_file().name().string()));
  explain(where, [&] { require_state(checkpoint, config); });
  return checkpoint;
}

// Those of before the version was stored are of the first.
void RunDirectory::require_same_version(const optim::RunState& checkpoint) {
  const auto version = checkpoint.texts.find(version_key);
  const std::string theirs = version == checkpoint.texts.end() ? "0.1.0" : version->second;
  if (theirs != reel::version())
    throw ValueError(
        fmt::format("it is of Reel {}, and this is {}, which may round otherwise: the "
                    "weights would not be those of an uninterrupted run; go on all the "
                    "same with --force, or with that version",
                    printable(theirs, 40), reel::version()));
}

template <class Write>
void RunDirectory::write_checkpoint(const RunConfig& config, optim::RunState& checkpoint,
                                    Write&& write_it) const try {
  checkpoint.texts[identity_key] = config.identity();
  checkpoint.texts[version_key] = std::string(reel::version());
  if (!is_described(config)) write(config);
  write_it();
} catch (const FileError&) {
  if (!directory_ || !directory_->is_deleted()) throw;
  throw FileError(
      fmt::format("{}: the directory was deleted, so the run cannot be saved", short_path(path_)));
}

void RunDirectory::save(const nn::Location& where, const RunConfig& config,
                        optim::RunState checkpoint) const {
  write_checkpoint(config, checkpoint, [&] { optim::save_run_state(where, checkpoint); });
}

void RunDirectory::save_step(Index step, int keep, const RunConfig& config,
                             optim::RunState checkpoint) const {
  write_checkpoint(config, checkpoint, [&] {
    make_folder(kept_folder);
    optim::StepFiles(path() / kept_folder, keep).save(step, checkpoint);
  });
}

}  // namespace reel::char_lm
