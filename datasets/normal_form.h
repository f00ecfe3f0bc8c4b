#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <reel/autograd/error.h>

namespace reel::datasets {

/// The normalisation forms of Unicode (UAX #15): composed (NFC) or decomposed (NFD) characters, and
/// the same with compatibility characters such as ligatures replaced (NFKC, NFKD).
enum class NormalForm : std::uint8_t { nfc, nfd, nfkc, nfkd };

/// A text in a normal form, in which texts that are canonically equivalent have the same bytes:
///
///     normalized(normalized(text, form), form) = normalized(text, form)
///
/// Computed by utf8proc; characters that are newer than its version of Unicode stay as they are.
/// Throws ValueError if the text is not UTF-8, naming the offset, and Error if Reel was built
/// without utf8proc.
std::string normalized(std::string_view text, NormalForm form, Site site = {});

}  // namespace reel::datasets
