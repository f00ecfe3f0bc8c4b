#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include <reel/autograd/shape.h>
#include <reel/nn/files/location.h>

/// The files of a run that grow with it, which have one JSON object per line.
namespace reel::char_lm {

using Json = nlohmann::ordered_json;

/// The JSON object that a text is. Throws ValueError if it is none, or nested deeper or with more
/// keys in an object than anything that is written here.
Json parse_object(const std::string& text);

/// Calls f(object, end) for each line, `end` being the offset after it, until f returns false. A
/// missing file has no lines, and what follows the last newline is none. Throws FileError with path
/// and line, also for what f throws: for a line that is no JSON object, or longer than 16 MiB.
void each_object(const nn::Location& where,
                 const std::function<bool(const Json& object, std::uint64_t end)>& f);

/// Appends a line, if possible with a single write, so that a crash does not leave a partial line.
/// Throws FileError, having added nothing.
void append_line(const nn::Location& where, const std::string& line);

/// Keeps the first `size` bytes of the file, which may be missing or shorter.
void cut_off(const nn::Location& where, std::uint64_t size);

/// The finite number under a key. Throws ValueError if there is another value, or none.
double number_in(const Json& object, const std::string& key);
/// The same, or none if there is no such key, or null.
std::optional<double> number_if(const Json& object, const std::string& key);
/// A whole number from 0 to below 2^53.
Index count_in(const Json& object, const std::string& key);
std::string text_in(const Json& object, const std::string& key);

}  // namespace reel::char_lm
