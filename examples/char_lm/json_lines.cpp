#include "json_lines.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/nn/files/file.h>

namespace reel::char_lm {
namespace {

constexpr std::size_t longest = 1 << 24;  // ours are a fraction of it even with a diagnosis

const Json& value_in(const Json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end()) throw ValueError(fmt::format("it has no \"{}\"", key));
  return *found;
}

[[noreturn]] void refuse_value(const std::string& key, const Json& value, std::string_view wanted) {
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  throw ValueError(fmt::format("its \"{}\" is {}, not {}", key, printable(text, 80), wanted));
}

}  // namespace

// Our lines are nested to depth 5, with a few keys in an object. Deeper ones could take memory out
// of proportion to their length, and many keys time: an object looks through those it has for each.
Json parse_object(const std::string& text) {
  constexpr int deepest = 8, most_keys = 1000;
  std::array<int, deepest + 1> keys{};
  const auto watch = [&](int depth, Json::parse_event_t event, const Json&) {
    if (depth > deepest) throw ValueError("it is nested too deeply");
    const auto level = static_cast<std::size_t>(depth);
    if (event == Json::parse_event_t::object_start) keys[level] = 0;
    if (event == Json::parse_event_t::key && ++keys[level - 1] > most_keys)
      throw ValueError("it has too many keys");
    return true;
  };
  try {
    Json parsed = Json::parse(text, watch);
    if (!parsed.is_object()) throw ValueError("it is not a JSON object");
    return parsed;
  } catch (const Json::parse_error& error) {
    throw ValueError(fmt::format("it is not valid JSON (at column {})", error.byte));
  } catch (const Json::exception&) {  // a number that is too large
    throw ValueError("it is not valid JSON");
  }
}

void each_object(const nn::Location& where,
                 const std::function<bool(const Json& object, std::uint64_t end)>& f) {
  if (!where.exists()) return;
  nn::File file = nn::File::regular(where, O_RDONLY);
  std::array<char, 1 << 16> chunk;
  std::string line;
  std::uint64_t end = 0;
  Index number = 1;
  const auto take = [&] {
    try {
      return f(parse_object(line), end);
    } catch (const ValueError& error) {
      throw FileError(fmt::format("{}: line {}: {}; delete the line to do without it", where.str(),
                                  number, error.message()));
    }
  };
  while (const std::size_t count = file.read(std::as_writable_bytes(std::span(chunk)))) {
    std::string_view rest(chunk.data(), count);
    for (auto at = rest.find('\n'); at != std::string_view::npos; at = rest.find('\n')) {
      line += rest.substr(0, at);
      rest.remove_prefix(at + 1);
      end += line.size() + 1;
      if (!take()) return;
      line.clear();
      ++number;
    }
    line += rest;
    if (line.size() > longest)
      throw FileError(fmt::format("{}: line {} has more than the {} bytes that one can have",
                                  where.str(), number, longest));
  }
}

void append_line(const nn::Location& where, const std::string& line) {
  nn::File file = nn::File::regular(where, O_WRONLY | O_CREAT | O_APPEND);
  const std::uint64_t before = file.size();
  try {
    file.write(std::as_bytes(std::span(line)));
    file.close();
  } catch (const FileError&) {
    try {
      nn::File::regular(where, O_WRONLY).resize(before);
    } catch (const FileError&) {  // half a line remains; the first error is more informative
    }
    throw;
  }
}

void cut_off(const nn::Location& where, std::uint64_t size) {
  if (!where.exists()) return;
  nn::File file = nn::File::regular(where, O_WRONLY);
  if (file.size() > size) file.resize(size);
}

double number_in(const Json& object, const std::string& key) {
  const Json& value = value_in(object, key);
  const double number = value.is_number() ? value.get<double>() : NAN;
  if (!std::isfinite(number)) refuse_value(key, value, "a number");
  return number;
}

std::optional<double> number_if(const Json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  return number_in(object, key);
}

Index count_in(const Json& object, const std::string& key) {
  const double number = number_in(object, key);
  if (!(number >= 0 && number < 0x1p53 && number == std::floor(number)))
    refuse_value(key, value_in(object, key), "a count");
  return static_cast<Index>(number);
}

std::string text_in(const Json& object, const std::string& key) {
  const Json& value = value_in(object, key);
  if (!value.is_string()) refuse_value(key, value, "a text");
  return value.get<std::string>();
}

}  // namespace reel::char_lm
