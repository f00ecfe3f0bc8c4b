#include "run_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>
#include <vector>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>

namespace reel::char_lm {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char *hash_key = "fnv1a", *parts_hash_key = "fnv1a_of_parts";

std::string hex(std::uint64_t hash) { return fmt::format("{:016x}", hash); }

Json json_of(const Vocabulary& vocabulary) {
  if (const auto listing = vocabulary.listing()) return *listing;
  return {{"symbols", vocabulary.size()}, {hash_key, hex(vocabulary.hash())}};
}

Json json_of(const RunConfig& config) {
  Json json;
  each_setting(config.settings,
               [&](const Setting& setting, const auto& value) { json[key_of(setting)] = value; });
  json["text"] = {{"path", config.text.path},
                  {"bytes", config.text.bytes},
                  {config.text.in_parts ? parts_hash_key : hash_key, hex(config.text.hash)}};
  json["vocabulary"] = json_of(*config.vocabulary);
  return json;
}

// Watches the JSON while it is parsed and refuses what is expensive: the library would build any
// number of values, and print nested ones recursively. It would also silently keep the last of
// duplicate keys. A valid configuration is an object of objects, without arrays.
class Watch {
 public:
  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    using Event = Json::parse_event_t;
    if (event == Event::array_start) {
      if (depth == 0) throw ValueError("it is an array, not a JSON object");
      throw ValueError(fmt::format("its {} is an array or holds one", in_quotes(outer_key_)));
    }
    if (event == Event::object_start) {
      if (depth > 1)
        throw ValueError(fmt::format("its {} is nested too deeply", in_quotes(outer_key_)));
      keys_[depth].clear();
    }
    if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (depth == 1) outer_key_ = key;
      auto& keys = keys_[depth - 1];
      if (!keys.insert(key).second)
        throw ValueError(fmt::format("its key {} occurs twice", in_quotes(key)));
      if (keys.size() > 100) throw ValueError("it has too many keys");
    }
    return true;
  }

 private:
  std::string outer_key_;
  std::set<std::string> keys_[2];
};

// The members of an object, each of which must be read.
class Members {
 public:
  explicit Members(const Json& json) : json_(json) {}

  const Json& operator[](const std::string& key) {
    const auto found = json_.find(key);
    if (found == json_.end()) throw ValueError(fmt::format("it has no \"{}\"{}", key, meant(key)));
    known_.push_back(key);
    return *found;
  }
  bool has(const std::string& key) const { return json_.contains(key); }
  std::string string(const std::string& key) {
    const Json& value = (*this)[key];
    if (!value.is_string()) throw ValueError(fmt::format("its \"{}\" is not a string", key));
    return value.get<std::string>();
  }
  void require_no_others() const {
    for (const auto& [key, value] : json_.items())
      if (std::ranges::find(known_, key) == known_.end())
        throw ValueError(
            fmt::format("its key {} is unknown{}", in_quotes(key), suggestion(key, known_)));
  }

 private:
  // The key that stands in the place of one that is missing, if there is one.
  std::string meant(const std::string& missing) const {
    std::vector<std::string> keys;
    for (const auto& [key, value] : json_.items()) keys.push_back(key);
    const auto near = nearest(missing, keys);
    return near ? fmt::format(", but {}", in_quotes(*near)) : "";
  }

  const Json& json_;
  std::vector<std::string> known_;
};

template <class T>
void assign_json(const Setting& setting, const Json& json, T& value) {
  const bool fits = std::is_same_v<T, std::string> ? json.is_string()
                    : std::is_same_v<T, bool>      ? json.is_boolean()
                                                   : json.is_number();
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (!fits) refuse(setting, printable(text, 80) + (json.is_string() ? ", a string" : ""));
  assign(setting, json.is_string() ? json.get<std::string>() : text, value);
}

[[noreturn]] void refuse_json(std::string_view text, std::size_t byte) {
  throw ValueError(fmt::format("it is not valid JSON ({})", place_in(text, byte)));
}

Json json_in(std::string_view text) {
  // The library would treat a NUL as the end.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos)
    refuse_json(text, nul);
  try {
    return Json::parse(text, Watch());
  } catch (const Json::parse_error& error) {
    refuse_json(text, error.byte - std::min<std::size_t>(error.byte, 1));  // it counts from 1
  } catch (const Json::exception&) {  // a number that is too large
    throw ValueError("it is not valid JSON");
  }
}

std::uint64_t size_in(Members& members, const char* key) {
  const Json& size = members[key];
  if (!size.is_number_unsigned()) throw ValueError(fmt::format("its \"{}\" is not a size", key));
  return size.get<std::uint64_t>();
}

std::uint64_t hash_in(Members& members, const char* key) {
  const std::string text = members.string(key);
  const char* end = text.data() + text.size();
  std::uint64_t hash = 0;
  const auto [stop, error] = std::from_chars(text.data(), end, hash, 16);
  if (text.size() != 16 || error != std::errc() || stop != end)
    throw ValueError(fmt::format("its \"{}\" is not a number of 16 hexadecimal digits", key));
  return hash;
}

TextId text_id(const Json& json, const Settings& settings) {
  if (!json.is_object()) throw ValueError("its \"text\" is not an object");
  Members members(json);
  TextId id{.path = members.string("path")};
  if (id.path.find('\0') != std::string::npos)
    throw ValueError("its \"path\" holds a NUL, which no path does");
  id.bytes = size_in(members, "bytes");
  id.in_parts = members.has(parts_hash_key);
  if (id.in_parts && !can_stay_in_file(settings))
    throw ValueError(
        fmt::format("its \"{}\" is of a text in its file, which level {} and normalize "
                    "{} do not have",
                    parts_hash_key, settings.level, settings.normalize));
  id.hash = hash_in(members, id.in_parts ? parts_hash_key : hash_key);
  members.require_no_others();
  return id;
}

VocabularyPtr vocabulary_in(Members& config, const Settings& settings,
                            const nn::Location& vocabulary_file) {
  if (has_listing(settings)) return listed_vocabulary(config.string("vocabulary"), settings);
  const Json& json = config["vocabulary"];
  if (!json.is_object()) throw ValueError("its \"vocabulary\" is not an object");
  Members members(json);
  const auto size = static_cast<Index>(size_in(members, "symbols"));
  const std::uint64_t hash = hash_in(members, hash_key);
  members.require_no_others();
  return load_vocabulary(vocabulary_file, settings, size, hash);
}

}  // namespace

std::string RunConfig::identity() const {
  Json json = json_of(*this);
  // Runs that were begun before these settings existed have windows of seq_len.
  if (settings.tbptt_update == settings.seq_len && settings.tbptt_length == settings.seq_len)
    for (const char* key : {"tbptt_update", "tbptt_length"}) json.erase(key);
  Settings earlier{.bytes = settings.bytes};
  complete(earlier, all_given);
  const Json of_earlier_versions = json_of({earlier, text, vocabulary});
  each_setting(settings, [&](const Setting& setting, const auto&) {
    const std::string key = key_of(setting);
    if (may_change(setting, settings) ||
        (setting.is_recent && json[key] == of_earlier_versions[key]))
      json.erase(key);
  });
  json["text"].erase("path");
  return json.dump();
}

std::string RunConfig::json() const {
  const auto replace = Json::error_handler_t::replace;  // a path may not be UTF-8
  return json_of(*this).dump(2, ' ', false, replace) + '\n';
}

RunConfig parse_config(std::string_view text, const nn::Location& vocabulary_file) {
  const Json json = json_in(text);
  if (!json.is_object()) throw ValueError("it is not a JSON object");
  Members members(json);
  Settings settings;
  each_setting(settings, [&](const Setting& setting, auto& value) {
    const bool is_optional = !setting.otherwise.empty() || setting.is_recent;
    if (!is_optional || members.has(key_of(setting)))
      assign_json(setting, members[key_of(setting)], value);
  });
  complete(settings, all_given);
  TextId id = text_id(members["text"], settings);
  VocabularyPtr vocabulary = vocabulary_in(members, settings, vocabulary_file);
  members.require_no_others();
  return {settings, std::move(id), std::move(vocabulary)};
}

}  // namespace reel::char_lm
