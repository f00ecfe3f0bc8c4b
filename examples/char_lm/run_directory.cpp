#include "run_directory.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cmath>

#include <reel/nn/files/atomic_file.h>
#include <reel/nn/files/file.h>

#include "model.h"

namespace reel::char_lm {
namespace {

constexpr const char* identity_key = "config";

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

// Checked before a model is created, for which there may not be enough memory.
void require_shapes(const nn::NamedTensors& params, const RunConfig& config) {
  std::size_t count = 0;
  each_parameter(
      config.settings, config.vocabulary.size(), [&](const std::string& name, const Shape& shape) {
        const Tensor& value = params[name];
        if (value.shape() != shape || value.dtype() != dtype_of(config.settings))
          throw ValueError(fmt::format(
              "tensor {} is {} {}, but {} {} in the model of the run's configuration", name,
              name_of(value.dtype()), value.shape().str(), config.settings.dtype, shape.str()));
        ++count;
      });
  if (count != params.tensors.size())
    throw ValueError(
        fmt::format("it has {} parameters, but the model of the run's configuration {}",
                    params.tensors.size(), count));
}

}  // namespace

void RunDirectory::require_vacant() const {
  std::error_code ignored;
  if (std::filesystem::exists(path_, ignored) && !std::filesystem::is_directory(path_, ignored))
    throw FileError(path_.string() + ": not a directory; give another --run");
  for (const auto& file : {model_file(), config_file(), metrics_file()})
    if (file.exists())
      throw FileError(fmt::format(
          "{}: there is a run in it already; go on with it (--resume), or give another --run",
          path_.string()));
}

void RunDirectory::require_run() const {
  std::error_code ignored;
  if (!std::filesystem::exists(path_, ignored))
    throw FileError(path_.string() + ": there is no such directory; train makes one");
  if (!config_file().exists())
    throw FileError(path_.string() + ": there is no run in it (no config.json); train makes one");
}

void RunDirectory::make() const {
  std::error_code error;
  std::filesystem::create_directories(path_, error);
  if (error)
    throw FileError(
        fmt::format("{}: cannot make the directory: {}", path_.string(), error.message()));
}

void RunDirectory::lock() {
  directory_.emplace(path_);
  if (!directory_->lock()) throw FileError(path_.string() + ": another process is training in it");
}

void RunDirectory::remove_leftovers() const {
  for (const auto& file : {model_file(), config_file()}) nn::AtomicFile::remove_leftovers(file);
}

void RunDirectory::write(const RunConfig& config) const {
  nn::write_file(config_file(), config.json());
}

RunConfig RunDirectory::read_config() const {
  require_run();
  const std::string content = content_of(config_file(), longest_config);
  try {
    return parse_config(content);
  } catch (const Error& error) {
    throw FileError(fmt::format("{}: {}", config_file().str(), error.what()));
  }
}

bool RunDirectory::never_saved() const {
  return !model_file().exists() && !metrics_file().exists();
}

optim::RunState RunDirectory::load(const RunConfig& config) const {
  optim::RunState checkpoint = optim::load_run_state(model_file());
  const auto identity = checkpoint.texts.find(identity_key);
  if (identity == checkpoint.texts.end() || identity->second != config.identity())
    throw FileError(fmt::format("{}: it is not the model of the run that {} describes",
                                model_file().str(), config_file().name().string()));
  explain([&] {
    require_shapes(checkpoint.params, config);
    if (const std::string name = first_not_finite(checkpoint.params); !name.empty())
      throw ValueError(fmt::format("tensor {} holds a number that is not finite", name));
  });
  return checkpoint;
}

void RunDirectory::save(const RunConfig& config, optim::RunState checkpoint) const {
  checkpoint.texts[identity_key] = config.identity();
  optim::save_run_state(model_file(), checkpoint);
}

}  // namespace reel::char_lm
