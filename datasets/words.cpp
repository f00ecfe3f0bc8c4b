#include <reel/datasets/words.h>

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include <reel/autograd/message.h>
#include <reel/autograd/utf8.h>
#include <reel/datasets/line_reader.h>
#include <reel/nn/files/atomic_file.h>

namespace reel::datasets {
namespace {

constexpr std::string_view unknown_word = "<unk>", end_word = "<eos>";
constexpr std::string_view spaces = " \t\v\f\r";
constexpr Index most_words = std::numeric_limits<std::int32_t>::max();

// Calls f with every word of a text, and with "<eos>" at the end of each line.
template <class F>
void each_word(std::string_view text, F f) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    while (true) {
      line.remove_prefix(std::min(line.find_first_not_of(spaces), line.size()));
      if (line.empty()) break;
      const std::size_t length = std::min(line.find_first_of(spaces), line.size());
      f(line.substr(0, length));
      line.remove_prefix(length);
    }
    f(end_word);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

void require_text(std::string_view text, Site site) {
  for (std::size_t i = 0; i < text.size();) {
    const auto [value, length] = utf8::symbol_at(text, i);
    if (length == 0)
      throw ValueError(fmt::format("WordVocabulary: the text is not valid UTF-8 at byte {}", i),
                       site);
    if (value == 0)
      throw ValueError(fmt::format("WordVocabulary: there is a NUL at byte {} of the text", i),
                       site);
    i += length;
  }
}

void require_options(const WordOptions& options, Site site) {
  if (options.min_count < 1)
    throw ValueError(
        fmt::format("WordVocabulary: min_count is {}, but has to be 1 or more", options.min_count),
        site);
  if (options.max_size != 0 && options.max_size < 3)
    throw ValueError(fmt::format("WordVocabulary: max_size is {}, but has to be 3 or more, or 0 "
                                 "for any number of words",
                                 options.max_size),
                     site);
}

using Counted = std::pair<std::string_view, Index>;

bool precedes(const Counted& a, const Counted& b) {
  return a.second != b.second ? a.second > b.second : a.first < b.first;
}

}  // namespace

WordVocabulary::WordVocabulary(std::string_view text, const WordOptions& options, Site site) {
  require_options(options, site);
  require_text(text, site);
  std::unordered_map<std::string_view, Index> counts;
  each_word(text, [&](std::string_view word) { ++counts[word]; });
  Index unknown_count = std::exchange(counts[unknown_word], 0);
  const Index lines = std::exchange(counts[end_word], 0);
  std::vector<Counted> known;
  for (const Counted counted : counts)
    if (counted.second >= options.min_count)
      known.push_back(counted);
    else
      unknown_count += counted.second;
  if (counts.size() == 2) throw ValueError("WordVocabulary: the text has no words", site);
  std::ranges::sort(known, precedes);
  const Index most = options.max_size == 0 ? most_words : std::min(options.max_size, most_words);
  for (; std::ssize(known) + 2 > most; known.pop_back()) unknown_count += known.back().second;
  append(unknown_word, unknown_count);
  append(end_word, lines);
  for (const auto& [word, count] : known) append(word, count);
}

WordVocabulary WordVocabulary::load(const std::filesystem::path& path) {
  LineReader in(path);
  const Index size = in.read_title("words", 2, most_words);
  WordVocabulary vocabulary;
  Counted before;
  while (in.next()) {
    if (vocabulary.size() == size) in.fail(fmt::format("more than the {} words of line 1", size));
    const auto fields = fields_of(in.line(), '\t');
    if (fields.size() != 2) in.fail("not a word, a tab and a count");
    const auto [word, text] = std::pair(fields[0], fields[1]);
    const auto count = whole_number(text);
    if (!count) in.fail(2, "count", fmt::format("{} is no count", in_quotes(text)));
    const Index token = vocabulary.size();
    const std::string_view special = token == 0 ? unknown_word : token == 1 ? end_word : "";
    if (!special.empty() && word != special)
      in.fail(1, "word", fmt::format("{}, where {} has to be", in_quotes(word), special));
    if (special.empty() && (*count == 0 || word == unknown_word || word == end_word ||
                            word.empty() || word.find_first_of(spaces) != word.npos))
      in.fail(fmt::format("{} is no word that occurs", in_quotes(word)));
    if (token > 2 && !precedes(before, {word, *count}))
      in.fail("not in the order of falling counts, equal ones by the bytes of their words");
    vocabulary.append(word, *count);
    before = {word, *count};
  }
  if (vocabulary.size() < size)
    in.fail_file(
        fmt::format("cut off: it has {} of the {} words of line 1", vocabulary.size(), size));
  return vocabulary;
}

void WordVocabulary::save(const nn::Location& where) const {
  std::string text = fmt::format("words {}\n", size());
  for (std::size_t i = 0; i < words_.size(); ++i)
    text += fmt::format("{}\t{}\n", words_[i], counts_[i]);
  nn::write_file(where, text);
}

std::int32_t WordVocabulary::token(std::string_view word) const {
  const auto found = tokens_.find(word);
  return found == tokens_.end() ? unknown : found->second;
}

std::vector<std::int32_t> WordVocabulary::encode(std::string_view text) const {
  std::vector<std::int32_t> tokens;
  each_word(text, [&](std::string_view word) { tokens.push_back(token(word)); });
  return tokens;
}

std::string WordVocabulary::decode(std::span<const std::int32_t> tokens, Site site) const {
  std::string text;
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= size())
      throw ValueError(
          fmt::format("there is no token {} in a vocabulary of {} words", token, size()), site);
    if (token == end_of_line) {
      text += '\n';
      continue;
    }
    if (!text.empty() && text.back() != '\n') text += ' ';
    text += words_[static_cast<std::size_t>(token)];
  }
  return text;
}

void WordVocabulary::append(std::string_view word, Index count) {
  tokens_.emplace(word, static_cast<std::int32_t>(words_.size()));
  words_.emplace_back(word);
  counts_.push_back(count);
}

}  // namespace reel::datasets
