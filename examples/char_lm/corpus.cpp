#include "corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <optional>

#include <reel/autograd/error.h>
#include <reel/autograd/hash.h>

namespace reel::char_lm {

// Generated at build time, see make_text.py.
extern const unsigned char default_text[];
extern const std::size_t default_text_size;

namespace {

std::string content(const std::filesystem::path& path, datasets::TextMode mode) {
  if (!path.empty()) return datasets::read_text(path, mode);
  return {reinterpret_cast<const char*>(default_text), default_text_size};
}

// Whether each part of a text of n symbols is long enough for a window.
bool is_enough(Index n, Index least, double train_frac) {
  const auto train = static_cast<Index>(train_frac * static_cast<double>(n));
  return train >= least && (train_frac == 1 || n - train >= least);
}

// The smallest sufficient n, searched from just below an estimate because of rounding. None if a
// part is so small that no text has a window in it.
std::optional<Index> least_length(Index least, double train_frac) {
  const double smaller = train_frac == 1 ? 1 : std::min(train_frac, 1 - train_frac);
  const double estimate = static_cast<double>(least - 1) / smaller;
  if (!(estimate < 0x1p50)) return std::nullopt;
  Index n = std::max<Index>(0, static_cast<Index>(estimate) - 2);
  while (!is_enough(n, least, train_frac)) ++n;
  return n;
}

}  // namespace

std::string TextId::description() const {
  return path.empty() ? "Reel's own sources and documentation" : path;
}

Corpus read_corpus(const std::filesystem::path& path, datasets::TextMode mode) try {
  const std::string text = content(path, mode);
  const TextId id{.path = path.empty() ? "" : std::filesystem::absolute(path).string(),
                  .bytes = text.size(),
                  .hash = fnv1a(text)};
  datasets::Vocabulary vocabulary(text, mode);
  std::vector<std::int32_t> tokens = vocabulary.encode(text);
  return {id, std::move(vocabulary), std::move(tokens)};
} catch (const std::bad_alloc&) {
  throw FileError(
      fmt::format("{}: there is not enough memory for the text; take a part of it", path.string()));
}

datasets::Split split_for(const Corpus& corpus, const Settings& settings) {
  const auto n = static_cast<Index>(corpus.tokens.size());
  const Index least = datasets::Windows::least_tokens(settings.batch, settings.seq_len);
  if (is_enough(n, least, settings.train_frac))
    return datasets::split(corpus.tokens, settings.train_frac);
  const auto enough = least_length(least, settings.train_frac);
  throw ValueError(fmt::format(
      "{}: the text is too short: {} {}, but --batch {} x --seq-len {} with --train-frac {} takes "
      "at least {}; give a longer text, a smaller --batch or a smaller --seq-len{}",
      corpus.id.description(), n, settings.bytes ? "bytes" : "characters", settings.batch,
      settings.seq_len, settings.train_frac,
      enough ? fmt::format("{}", *enough) : "more than any text has",
      settings.train_frac < 1 ? ", or do without validation (--train-frac 1)" : ""));
}

}  // namespace reel::char_lm
