#include "corpus.h"

#include <fmt/format.h>

#include <new>
#include <optional>

#include <reel/autograd/error.h>
#include <reel/autograd/hash.h>

#include "words.h"

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

// The smallest sufficient n, by bisection: a formula would have to reproduce the rounding. None if
// a part is so small that no text has a window in it.
std::optional<Index> least_length(Index least, double train_frac) {
  Index too_short = 0, enough = Index{1} << 50;
  if (!is_enough(enough, least, train_frac)) return std::nullopt;
  while (enough - too_short > 1) {
    const Index middle = (too_short + enough) / 2;
    (is_enough(middle, least, train_frac) ? enough : too_short) = middle;
  }
  return enough;
}

// As given if the working directory was removed or cannot be named.
std::string absolute_path(const std::filesystem::path& path) {
  if (path.empty()) return "";
  std::error_code error;
  const auto from_root = std::filesystem::absolute(path, error);
  return error ? path.string() : from_root.string();
}

}  // namespace

std::string TextId::description() const {
  return path.empty() ? "Reel's own sources and documentation" : short_path(path);
}

Corpus read_corpus(const std::filesystem::path& path, datasets::TextMode mode) try {
  const std::string text = content(path, mode);
  const TextId id{.path = absolute_path(path), .bytes = text.size(), .hash = fnv1a(text)};
  datasets::Vocabulary vocabulary(text, mode);
  std::vector<std::int32_t> tokens = vocabulary.encode(text);
  return {id, std::move(vocabulary), std::move(tokens)};
} catch (const std::bad_alloc&) {
  throw FileError(fmt::format("{}: there is not enough memory for the text; take a part of it",
                              short_path(path)));
}

datasets::Split split_for(const Corpus& corpus, const Settings& settings) {
  const auto n = static_cast<Index>(corpus.tokens.size());
  // Training takes windows of tbptt_update steps, validation of seq_len.
  const bool by_update = settings.tbptt_update > settings.seq_len;
  const int steps = by_update ? settings.tbptt_update : settings.seq_len;
  const char* const option = by_update ? "--tbptt-update" : "--seq-len";
  const Index least = datasets::Windows::least_tokens(settings.batch, steps);
  if (is_enough(n, least, settings.train_frac))
    return datasets::split(corpus.tokens, settings.train_frac);
  const auto enough = least_length(least, settings.train_frac);
  throw ValueError(fmt::format(
      "{}: the text is too short: {}, but --batch {} x {} {} with --train-frac {} takes "
      "at least {}; give a longer text, a smaller --batch or a smaller {}{}",
      corpus.id.description(), counted(n, settings.bytes ? "byte" : "character"), settings.batch,
      option, steps, settings.train_frac,
      enough ? fmt::format("{}", *enough) : "more than any text has", option,
      settings.train_frac < 1 ? ", or do without validation (--train-frac 1)" : ""));
}

}  // namespace reel::char_lm
