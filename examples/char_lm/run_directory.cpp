#include "run_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include <reel/autograd/error.h>
#include <reel/nn/files/atomic_file.h>

namespace reel::char_lm {
namespace {

using datasets::TextMode;
using datasets::Vocabulary;
using Json = nlohmann::ordered_json;

// One character for each symbol; a byte is the code point of the same number.
std::string text_of(const Vocabulary& vocabulary) {
  const Vocabulary characters(vocabulary.symbols(), TextMode::utf8);
  std::vector<std::int32_t> all(vocabulary.symbols().size());
  std::iota(all.begin(), all.end(), 0);
  return characters.decode(all);
}

Json json_of(const RunConfig& config) {
  Json json;
  each_setting(config.settings,
               [&](const Setting& setting, const auto& value) { json[key_of(setting)] = value; });
  json["text"] = {{"path", config.text.path},
                  {"bytes", config.text.bytes},
                  {"fnv1a", fmt::format("{:016x}", config.text.hash)}};
  json["vocabulary"] = text_of(config.vocabulary);
  return json;
}

const Json& member(const Json& json, const std::string& key, bool (Json::*is_kind)() const,
                   std::string_view kind) {
  const auto found = json.find(key);
  if (found == json.end()) throw ValueError(fmt::format("it has no \"{}\"", key));
  if (!((*found).*is_kind)()) throw ValueError(fmt::format("its \"{}\" is not {}", key, kind));
  return *found;
}

std::string string_member(const Json& json, const std::string& key) {
  return member(json, key, &Json::is_string, "a string").get<std::string>();
}

TextId text_id(const Json& json) {
  const std::string hash = string_member(json, "fnv1a");
  return {.path = string_member(json, "path"),
          .bytes = member(json, "bytes", &Json::is_number_unsigned, "a size").get<std::uint64_t>(),
          .hash = std::strtoull(hash.c_str(), nullptr, 16)};
}

RunConfig config_of(const Json& json) {
  if (!json.is_object()) throw ValueError("it is not a JSON object");
  Settings settings;
  each_setting(settings, [&](const Setting& setting, auto& value) {
    const auto found = json.find(key_of(setting));
    if (found == json.end()) throw ValueError(fmt::format("it has no \"{}\"", key_of(setting)));
    assign(setting, found->is_string() ? found->get<std::string>() : found->dump(), value);
  });
  const Vocabulary characters(string_member(json, "vocabulary"), TextMode::utf8);
  const TextMode mode = settings.bytes ? TextMode::bytes : TextMode::utf8;
  return {settings, text_id(member(json, "text", &Json::is_object, "an object")),
          Vocabulary(characters.symbols(), mode)};
}

// Calls f; errors in what a file says get the file's name.
template <class F>
decltype(auto) reading(const std::filesystem::path& path, F&& f) {
  try {
    return f();
  } catch (const FileError&) {
    throw;
  } catch (const Error& error) {
    throw FileError(fmt::format("{}: {}", path.string(), error.what()));
  }
}

constexpr const char* identity_key = "config";

}  // namespace

std::string RunConfig::identity() const {
  Json json = json_of(*this);
  json.erase("epochs");
  json["text"].erase("path");
  return json.dump();
}

void RunDirectory::require_vacant() const {
  std::error_code ignored;
  if (std::filesystem::exists(path_, ignored) && !std::filesystem::is_directory(path_, ignored))
    throw FileError(path_.string() + ": not a directory; give another --run");
  for (const auto& file : {model_file(), config_file(), metrics_file()})
    if (std::filesystem::exists(file, ignored))
      throw FileError(fmt::format(
          "{}: there is a run in it already; go on with it (--resume), or give another --run",
          path_.string()));
}

void RunDirectory::require_run() const {
  std::error_code ignored;
  if (!std::filesystem::exists(path_, ignored))
    throw FileError(path_.string() + ": there is no such directory; train makes one");
  if (!std::filesystem::exists(config_file(), ignored))
    throw FileError(path_.string() + ": there is no run in it (no config.json); train makes one");
}

void RunDirectory::make() const {
  std::error_code error;
  std::filesystem::create_directories(path_, error);
  if (error)
    throw FileError(
        fmt::format("{}: cannot make the directory: {}", path_.string(), error.message()));
}

void RunDirectory::remove_leftovers() const {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(path_, ignored)) {
    const std::string name = entry.path().filename().string();  // as nn::AtomicFile makes them
    for (const auto& file : {model_file(), config_file()})
      if (name.starts_with("." + file.filename().string()) && name.ends_with(".tmp"))
        std::filesystem::remove(entry.path(), ignored);
  }
}

void RunDirectory::write(const RunConfig& config) const {
  const auto replace = Json::error_handler_t::replace;  // a path need not be UTF-8
  nn::write_file(config_file(), json_of(config).dump(2, ' ', false, replace) + '\n');
}

RunConfig RunDirectory::read_config() const {
  require_run();
  return reading(config_file(), [&] {
    const std::string text = datasets::read_text(config_file());
    const Json json = Json::parse(text, nullptr, false);
    if (json.is_discarded()) throw ValueError("it is not valid JSON");
    return config_of(json);
  });
}

bool RunDirectory::never_saved() const {
  std::error_code ignored;
  return !std::filesystem::exists(model_file(), ignored) &&
         !std::filesystem::exists(metrics_file(), ignored);
}

optim::RunState RunDirectory::load(const RunConfig& config) const {
  optim::RunState checkpoint = optim::load_run_state(model_file());
  const auto identity = checkpoint.texts.find(identity_key);
  if (identity == checkpoint.texts.end() || identity->second != config.identity())
    throw FileError(fmt::format("{}: it is not the model of the run that {} describes",
                                model_file().string(), config_file().filename().string()));
  return checkpoint;
}

void RunDirectory::save(const RunConfig& config, optim::RunState checkpoint) const {
  checkpoint.texts[identity_key] = config.identity();
  optim::save_run_state(model_file(), checkpoint);
}

RunLock::RunLock(const RunDirectory& run)
    : descriptor_(::open(run.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (descriptor_ == -1)
    throw FileError(fmt::format("{}: cannot open: {}", run.path().string(), std::strerror(errno)));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK) {
    ::close(descriptor_);
    throw FileError(run.path().string() + ": another process is training in it");
  }
}

RunLock::~RunLock() { ::close(descriptor_); }

}  // namespace reel::char_lm
