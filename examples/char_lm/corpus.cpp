#include "corpus.h"

#include <fmt/format.h>

#include <new>
#include <optional>
#include <span>
#include <utility>

#include <reel/autograd/error.h>
#include <reel/autograd/hash.h>
#include <reel/datasets/normal_form.h>
#include <reel/datasets/text.h>
#include <reel/datasets/windows.h>
#include <reel/nn/files/file.h>

#include "words.h"

namespace reel::char_lm {

// Generated at build time, see make_text.py.
extern const unsigned char default_text[];
extern const std::size_t default_text_size;

namespace {

// Byte pairs are of bytes, whatever these are; a normal form is of characters.
datasets::TextMode mode_of(const Settings& settings) {
  const bool is_of_bytes = settings.level == "byte" || settings.level == "bpe";
  return is_of_bytes && settings.normalize == "none" ? datasets::TextMode::bytes
                                                     : datasets::TextMode::utf8;
}

std::string content(const std::filesystem::path& path, datasets::TextMode mode) {
  if (!path.empty()) return datasets::read_text(path, mode);
  return {reinterpret_cast<const char*>(default_text), default_text_size};
}

// Errors about the content of a text name it.
template <class F>
decltype(auto) explain(const std::filesystem::path& path, F&& f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    throw FileError(fmt::format("{}: there is not enough memory for the text; take a part of it",
                                short_path(path)));
  } catch (const FileError&) {
    throw;
  } catch (const Error& error) {
    throw FileError(fmt::format("{}: {}", short_path(path), error.message()));
  }
}

// The hash of 256 parts of 16 KiB, which are spread evenly from the first byte to the last.
std::uint64_t hash_of_parts(nn::File& file, std::uint64_t bytes) {
  constexpr std::uint64_t parts = 256, length = 16 << 10;
  std::uint64_t hash = fnv1a("");
  std::string part(length, '\0');
  for (std::uint64_t i = 0; bytes >= length && i < parts; ++i) {
    file.seek(i * (bytes - length) / (parts - 1));
    hash = fnv1a(
        std::string_view(part).substr(0, file.read(std::as_writable_bytes(std::span(part)))), hash);
  }
  return hash;
}

// The sizes of the parts of a text of n symbols.
struct Sizes {
  Index train, valid, test;
};

Sizes sizes_of(Index n, const Settings& s) {
  const auto share = [&](double fraction) {
    return static_cast<Index>(fraction * static_cast<double>(n));
  };
  const Index train = share(s.train_frac);
  if (!has_validation(s)) return {train, 0, n - train};
  const Index test = share(s.test_frac);
  return {train, n - train - test, test};
}

// Whether each part of a text of n symbols is long enough for a window.
bool is_enough(Index n, Index least, const Settings& s) {
  const auto [train, valid, test] = sizes_of(n, s);
  return train >= least && (valid >= least || !has_validation(s)) &&
         (test >= least || s.test_frac == 0);
}

// The smallest sufficient n, by bisection: a formula would have to reproduce the rounding. None if
// a part is so small that no text has a window in it.
std::optional<Index> least_length(Index least, const Settings& s) {
  Index too_short = 0, enough = Index{1} << 50;
  if (!is_enough(enough, least, s)) return std::nullopt;
  while (enough - too_short > 1) {
    const Index middle = (too_short + enough) / 2;
    (is_enough(middle, least, s) ? enough : too_short) = middle;
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

bool is_large(const std::filesystem::path& path, const Settings& settings) {
  if (path.empty() || !can_stay_in_file(settings)) return false;
  const auto status = nn::status_of(path);
  return status && status->is_regular() && status->size >= large_text;
}

std::string normalized(std::string text, const Settings& settings) {
  if (settings.normalize == "none") return text;
  return datasets::normalized(
      text, settings.normalize == "nfc" ? datasets::NormalForm::nfc : datasets::NormalForm::nfkc);
}

Text find_text(const std::filesystem::path& path, const Settings& settings, bool large) {
  Text text{.path = path, .id = {.path = absolute_path(path), .in_parts = large}};
  if (large) {
    nn::File file = nn::File::regular(path, O_RDONLY);
    text.id.bytes = file.size();
    text.id.hash = hash_of_parts(file, text.id.bytes);
    return text;
  }
  return explain(path, [&] {
    text.content = content(path, mode_of(settings));
    text.id.bytes = text.content.size();
    text.id.hash = fnv1a(text.content);
    text.content = normalized(std::move(text.content), settings);
    return std::move(text);
  });
}

Corpus corpus_of(const Text& text, const Settings& settings, VocabularyPtr vocabulary) {
  return explain(text.path, [&]() -> Corpus {
    if (text.id.in_parts) {
      if (!vocabulary) vocabulary = vocabulary_of_file(text.path, settings);
      return {text.id, vocabulary, vocabulary->tokens_in(text.path)};
    }
    if (!vocabulary) vocabulary = vocabulary_of(text.content, settings);
    return {text.id, vocabulary,
            std::make_unique<datasets::TokensInMemory>(vocabulary->encode(text.content))};
  });
}

TextParts split_for(const Corpus& corpus, const Settings& settings) {
  const Index n = corpus.tokens->size();
  // Training takes windows of tbptt_update steps, validation of seq_len.
  const bool by_update = settings.tbptt_update > settings.seq_len;
  const int steps = by_update ? settings.tbptt_update : settings.seq_len;
  const char* const option = by_update ? "--tbptt-update" : "--seq-len";
  const Index least = datasets::Windows::least_tokens(settings.batch, steps);
  const datasets::TokenSource& tokens = *corpus.tokens;
  const Sizes sizes = sizes_of(n, settings);
  if (is_enough(n, least, settings))
    return {{tokens, 0, sizes.train},
            {tokens, sizes.train, sizes.valid},
            {tokens, n - sizes.test, sizes.test}};
  const auto enough = least_length(least, settings);
  throw ValueError(
      fmt::format("{}: the text is too short: {}, but --batch {} x {} {} with {} takes "
                  "at least {}; give a longer text, a smaller --batch or a smaller {}{}",
                  corpus.id.description(), counted(n, unit_of(settings.level).name), settings.batch,
                  option, steps, parts_in_words(settings),
                  enough ? fmt::format("{}", *enough) : "more than any text has", option,
                  has_validation(settings) && settings.test_frac == 0
                      ? ", or do without validation (--train-frac 1)"
                      : ""));
}

}  // namespace reel::char_lm
