#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Untrusted text in messages: from files, names, command lines. Whatever it contains, the message
/// stays one line without terminal control sequences.
namespace reel {

/// Whether a code point is printable: no control character, none of zero width and none that
/// changes the writing direction.
bool is_printable(char32_t c);

/// The text with escapes for everything that is not printable (`\n`, `\u001b`) or not UTF-8
/// (`\xff`); text longer than `limit` bytes is truncated with "...".
std::string printable(std::string_view text, std::size_t limit = std::string_view::npos);

/// printable(text) in quotes, with inner quotes escaped; truncated to 80 bytes, like a name.
std::string in_quotes(std::string_view text);

/// "line 3, column 7", both from 1 and the column in bytes, of an offset in a text.
std::string place_in(std::string_view text, std::size_t offset);

/// "a, b, c and 5 more".
std::string listed(const std::vector<std::string>& names, std::size_t shown = 3);

/// The name that is probably meant by one that there is not; none where all are far from it.
std::optional<std::string> nearest(std::string_view wanted, const std::vector<std::string>& names);

/// What there is in place of a name that there is not: "; did you mean w_hh? There are: w_ih, w_hh,
/// b", with as many names as a line holds, each printable.
std::string suggestion(std::string_view wanted, const std::vector<std::string>& names);

}  // namespace reel
