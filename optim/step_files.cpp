#include <reel/optim/step_files.h>

#include <fmt/format.h>

#include <charconv>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>

#include <reel/nn/files/system.h>

namespace reel::optim {
namespace {

constexpr std::string_view before = "step-", after = ".safetensors";

// The step of a file of this name, if it is one that name_of makes.
std::optional<Index> step_of(const std::string& name) {
  if (!name.starts_with(before)) return std::nullopt;
  Index step = -1;
  std::from_chars(name.data() + before.size(), name.data() + name.size(), step);
  return step >= 0 && name == StepFiles::name_of(step) ? std::optional(step) : std::nullopt;
}

void require_done(const std::filesystem::path& path, const char* what, std::error_code error) {
  if (error)
    throw FileError(fmt::format("{}: cannot {}: {}", nn::Location(path).str(), what,
                                std::strerror(error.value())));
}

}  // namespace

StepFiles::StepFiles(std::filesystem::path directory, Arg<Index> keep, Site site)
    : directory_(directory.empty() ? "." : std::move(directory)), keep_(keep) {
  if (keep_ < 1)
    throw ValueError(fmt::format("StepFiles: keep is {}, but has to be at least 1", keep_), site);
}

std::string StepFiles::name_of(Index step) { return fmt::format("{}{:06}{}", before, step, after); }

void StepFiles::save(Arg<Index> step, const RunState& state, Site site) const {
  if (step < 0) throw ValueError(fmt::format("StepFiles: step {} is negative", Index{step}), site);
  save_run_state(directory_ / name_of(step), state, site);
  auto others = files();
  others.erase(step);
  for (; std::ssize(others) >= keep_; others.erase(others.begin())) {
    std::error_code error;
    std::filesystem::remove(others.begin()->second, error);
    require_done(others.begin()->second, "remove", error);
  }
}

std::map<Index, std::filesystem::path> StepFiles::files() const {
  std::map<Index, std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::directory_iterator i(directory_, error), end; !error && i != end;
       i.increment(error)) {
    std::error_code unknown;
    const auto step = step_of(nn::system::utf8(i->path().filename()));
    if (step && std::filesystem::is_regular_file(i->symlink_status(unknown)))
      files.emplace(*step, i->path());
  }
  require_done(directory_, "read", error);
  return files;
}

}  // namespace reel::optim
