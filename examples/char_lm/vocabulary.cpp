#include "vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include <reel/autograd/error.h>
#include <reel/autograd/hash.h>
#include <reel/autograd/message.h>
#include <reel/autograd/utf8.h>
#include <reel/datasets/byte_pairs.h>
#include <reel/datasets/text.h>
#include <reel/datasets/text_tokens.h>
#include <reel/datasets/words.h>

namespace reel::char_lm {
namespace {

using datasets::BytePairs;
using datasets::TextMode;
using datasets::WordVocabulary;
using Tokens = std::vector<std::int32_t>;

void require_known(const std::vector<std::string>& unknown) {
  if (!unknown.empty())
    throw ValueError(fmt::format("the model has never seen {}", listed(unknown, 8)));
}

// Characters or bytes, each by itself.
class Characters : public Vocabulary {
 public:
  explicit Characters(datasets::Vocabulary symbols) : symbols_(std::move(symbols)) {}

  Index size() const override { return symbols_.size(); }
  Tokens encode(std::string_view text) const override { return symbols_.encode(text); }
  Tokens encode_prime(std::string_view text) const override {
    if (text.empty()) return {};
    const datasets::Vocabulary used(text, symbols_.mode());
    std::vector<std::string> unknown;
    for (const char32_t symbol : used.symbols())
      if (!std::ranges::binary_search(symbols_.symbols(), symbol))
        unknown.push_back(datasets::name_of(symbol, symbols_.mode()));
    require_known(unknown);
    return encode(text);
  }
  std::unique_ptr<datasets::TokenSource> tokens_in(
      const std::filesystem::path& path) const override {
    return std::make_unique<datasets::TextTokens>(path, symbols_);
  }
  std::int32_t first() const override {
    const auto newline = std::ranges::find(symbols_.symbols(), U'\n');
    return newline == symbols_.symbols().end()
               ? 0
               : static_cast<std::int32_t>(newline - symbols_.symbols().begin());
  }
  std::string text(std::int32_t token, char) const override { return symbols_.decode({&token, 1}); }
  std::string readable(std::span<const std::int32_t> tokens) const override {
    return datasets::Vocabulary(symbols_.symbols(), TextMode::utf8).decode(tokens);
  }
  std::string name(std::int32_t token) const override {
    return datasets::name_of(symbols_.symbols()[static_cast<std::size_t>(token)], symbols_.mode());
  }
  std::optional<std::string> listing() const override {
    Tokens all(symbols_.symbols().size());
    std::iota(all.begin(), all.end(), 0);
    return readable(all);
  }

 private:
  datasets::Vocabulary symbols_;
};

class Words : public Vocabulary {
 public:
  explicit Words(WordVocabulary words) : words_(std::move(words)) {}

  Index size() const override { return words_.size(); }
  Tokens encode(std::string_view text) const override { return words_.encode(text); }
  // The last line goes on unless it ends. A word that is not known is <unk>, if the model has
  // learned what that is.
  Tokens encode_prime(std::string_view text) const override {
    Tokens tokens = encode(text);
    if (!text.empty() && !text.ends_with('\n')) tokens.pop_back();
    if (words_.counts()[WordVocabulary::unknown] == 0 &&
        std::ranges::find(tokens, WordVocabulary::unknown) != tokens.end())
      require_known(unknown_in(text));
    return tokens;
  }
  std::int32_t first() const override { return WordVocabulary::end_of_line; }
  std::string text(std::int32_t token, char before) const override {
    if (token == WordVocabulary::end_of_line) return "\n";
    const bool is_after_space = before == '\n' || before == ' ';
    return (is_after_space ? "" : " ") + words_.words()[static_cast<std::size_t>(token)];
  }
  std::string readable(std::span<const std::int32_t> tokens) const override {
    return joined(tokens);
  }
  std::string name(std::int32_t token) const override {
    return in_quotes(words_.words()[static_cast<std::size_t>(token)]);
  }
  void save(const nn::Location& where) const override { words_.save(where); }
  std::uint64_t hash() const override {
    std::uint64_t hash = fnv1a("words");
    for (std::size_t i = 0; i < words_.words().size(); ++i)
      hash = fnv1a(fmt::format("\n{}\t{}", words_.words()[i], words_.counts()[i]), hash);
    return hash;
  }

 private:
  std::vector<std::string> unknown_in(std::string_view text) const {
    std::set<std::string> unknown;
    const WordVocabulary used(text);
    for (const std::string& word : used.words())
      if (words_.token(word) == WordVocabulary::unknown) unknown.insert(in_quotes(word));
    unknown.erase(in_quotes(words_.words()[WordVocabulary::unknown]));
    return {unknown.begin(), unknown.end()};
  }

  WordVocabulary words_;
};

// UTF-8 with U+FFFD for every byte that belongs to no character.
std::string repaired(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8::symbol_at(text, i).length;
    if (length == 0)
      result += "\uFFFD";
    else
      result += text.substr(i, length);
    i += std::max<std::size_t>(length, 1);
  }
  return result;
}

// Parts of words, of one byte or more.
class Parts : public Vocabulary {
 public:
  explicit Parts(BytePairs pairs) : pairs_(std::move(pairs)) {}

  Index size() const override { return pairs_.size(); }
  Tokens encode(std::string_view text) const override { return pairs_.encode(text); }
  Tokens encode_prime(std::string_view text) const override { return encode(text); }
  std::int32_t first() const override { return '\n'; }
  std::string text(std::int32_t token, char) const override { return pairs_.token(token); }
  std::string readable(std::span<const std::int32_t> tokens) const override {
    return repaired(joined(tokens));
  }
  std::string name(std::int32_t token) const override { return in_quotes(pairs_.token(token)); }
  bool has_bits_per_byte() const override { return true; }
  void save(const nn::Location& where) const override { pairs_.save(where); }
  std::uint64_t hash() const override {
    std::uint64_t hash = fnv1a("byte_pairs");
    for (const BytePairs::Pair& pair : pairs_.pairs())
      hash = fnv1a(fmt::format("\n{} {}", pair[0], pair[1]), hash);
    return hash;
  }

 private:
  BytePairs pairs_;
};

TextMode mode_of(const Settings& settings) {
  return settings.level == "byte" ? TextMode::bytes : TextMode::utf8;
}

}  // namespace

std::string Vocabulary::joined(std::span<const std::int32_t> tokens) const {
  std::string result;
  for (const std::int32_t token : tokens)
    result += text(token, result.empty() ? '\n' : result.back());
  return result;
}

bool has_listing(const Settings& settings) {
  return settings.level == "char" || settings.level == "byte";
}

bool can_stay_in_file(const Settings& settings) {
  return has_listing(settings) && settings.normalize == "none";
}

VocabularyPtr vocabulary_of(std::string_view text, const Settings& settings) {
  if (settings.level == "word")
    return std::make_shared<Words>(WordVocabulary(
        text, {.min_count = settings.min_count, .max_size = settings.vocabulary_size}));
  if (settings.level == "bpe")
    return std::make_shared<Parts>(BytePairs::train(text, settings.vocabulary_size));
  return std::make_shared<Characters>(datasets::Vocabulary(text, mode_of(settings)));
}

VocabularyPtr vocabulary_of_file(const std::filesystem::path& path, const Settings& settings) {
  if (settings.level == "char")
    return std::make_shared<Characters>(datasets::vocabulary_of(path, TextMode::utf8));
  std::vector<char32_t> all(256);
  std::iota(all.begin(), all.end(), char32_t{0});
  return std::make_shared<Characters>(datasets::Vocabulary(all, TextMode::bytes));
}

VocabularyPtr listed_vocabulary(const std::string& listing, const Settings& settings) {
  const datasets::Vocabulary characters(listing, TextMode::utf8);
  auto vocabulary =
      std::make_shared<Characters>(datasets::Vocabulary(characters.symbols(), mode_of(settings)));
  if (vocabulary->listing() != listing)
    throw ValueError("its \"vocabulary\" does not have each symbol once, in ascending order");
  return vocabulary;
}

VocabularyPtr load_vocabulary(const nn::Location& where, const Settings& settings, Index size,
                              std::uint64_t hash) {
  const VocabularyPtr loaded = [&]() -> VocabularyPtr {
    if (settings.level == "word")
      return std::make_shared<Words>(WordVocabulary::load(where.path()));
    return std::make_shared<Parts>(BytePairs::load(where.path()));
  }();
  if (loaded->size() != size || loaded->hash() != hash)
    throw FileError(
        fmt::format("{}: not the vocabulary that the run was begun with: {} symbols, hash {:016x}, "
                    "but {} and {:016x} in config.json; put that one back",
                    where.str(), loaded->size(), loaded->hash(), size, hash));
  return loaded;
}

}  // namespace reel::char_lm
