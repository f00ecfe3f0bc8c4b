#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Parts of messages that come from elsewhere: from files, names, command lines. Whatever such a
/// text holds, the message stays one line that a terminal only shows.
namespace reel {

/// Whether a terminal shows a code point, and does nothing else: no control character, and none of
/// those without width or that turn the direction of what follows.
bool is_printable(char32_t c);

/// The text with escapes for all that is not printable (`\n`, `\u001b`) or not UTF-8 (`\xff`); what
/// is longer than `limit` bytes ends in "...".
std::string printable(std::string_view text, std::size_t limit = std::string_view::npos);

/// printable(text) in quotes, which are escaped in it; cut off like a name of 80 bytes.
std::string in_quotes(std::string_view text);

/// "a, b, c and 5 more".
std::string listed(const std::vector<std::string>& names, std::size_t shown = 3);

/// The name that is probably meant by one that there is not; none where all are far from it.
std::optional<std::string> nearest(std::string_view wanted, const std::vector<std::string>& names);

/// What there is in place of a name that there is not: "; did you mean w_hh? There are: w_ih, w_hh,
/// b", with as many names as a line holds, each printable.
std::string suggestion(std::string_view wanted, const std::vector<std::string>& names);

}  // namespace reel
