#include <reel/datasets/conllu.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>
#include <utility>

#include <reel/autograd/message.h>
#include <reel/datasets/line_reader.h>

namespace reel::datasets {
namespace {

constexpr std::array<std::string_view, 10> columns = {"ID",    "FORM", "LEMMA",  "UPOS", "XPOS",
                                                      "FEATS", "HEAD", "DEPREL", "DEPS", "MISC"};
enum Column : std::size_t { id, form, lemma, upos, xpos, feats, head, deprel, deps, misc };

using Fields = std::vector<std::string_view>;

// Reads sentences line by line.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : in_(path) {}

  std::vector<ConlluSentence> sentences() {
    while (in_.next()) {
      if (in_.line().empty())
        end_sentence();
      else if (in_.line().starts_with('#'))
        add_comment();
      else
        add_line();
    }
    if (in_sentence()) end_sentence();
    if (sentences_.empty()) in_.fail_file("there are no sentences in it");
    return std::move(sentences_);
  }

 private:
  // A reference to another word, which may stand in a later line.
  struct Reference {
    Index line, word;
  };

  bool in_sentence() const { return !sentence_.comments.empty() || next_id() > 1 || has_token_; }
  Index next_id() const { return std::ssize(sentence_.words) + 1; }

  [[noreturn]] void fail(Column column, std::string_view what) const {
    in_.fail(column + 1, columns[column], what);
  }

  void add_comment() {
    if (next_id() > 1 || has_token_) in_.fail("a comment after the first word of a sentence");
    std::string_view comment = in_.line().substr(1);
    comment.remove_prefix(std::min(comment.find_first_not_of(' '), comment.size()));
    sentence_.comments.emplace_back(comment);
  }

  void add_line() {
    const Fields fields = fields_of(in_.line(), '\t');
    if (fields.size() != columns.size())
      in_.fail(fmt::format("{} column{} between tabs, not {}", fields.size(),
                           fields.size() == 1 ? "" : "s", columns.size()));
    for (std::size_t i = 0; i < columns.size(); ++i)
      if (fields[i].empty()) fail(Column{i}, "it is empty; what is not known is _");
    if (fields[id].find('-') != std::string_view::npos)
      check_token(fields[id]);
    else if (fields[id].find('.') != std::string_view::npos)
      check_empty_node(fields[id]);
    else
      add_word(fields);
  }

  // The range of words of a multiword token, which begins at the next word.
  void check_token(std::string_view range) {
    const std::size_t dash = range.find('-');
    const auto first = whole_number(range.substr(0, dash));
    const auto last = whole_number(range.substr(dash + 1));
    if (!first || !last || *first != next_id() || *last < *first)
      fail(id, fmt::format("{} is no range of words from {} on", in_quotes(range), next_id()));
    if (*first <= token_end_)
      fail(id, fmt::format("{} overlaps the multiword token before", in_quotes(range)));
    token_end_ = *last;
    has_token_ = true;
    last_reference_ = std::max(last_reference_, {in_.number(), *last}, by_word);
  }

  void check_empty_node(std::string_view text) {
    const std::size_t dot = text.find('.');
    const auto word = whole_number(text.substr(0, dot)), node = whole_number(text.substr(dot + 1));
    if (!word || !node || *word != next_id() - 1 || *node < 1)
      fail(id, fmt::format("{} is no empty node after word {}", in_quotes(text), next_id() - 1));
    has_token_ = true;
  }

  void add_word(const Fields& fields) {
    if (whole_number(fields[id]) != next_id())
      fail(id, fmt::format("{} where word {} has to be", in_quotes(fields[id]), next_id()));
    const auto head_id = fields[head] == "_" ? Index{-1} : whole_number(fields[head]).value_or(-2);
    if (head_id == -2) fail(head, fmt::format("{} is no word", in_quotes(fields[head])));
    if (head_id == next_id()) fail(head, "the word depends on itself");
    last_reference_ = std::max(last_reference_, {in_.number(), head_id}, by_word);
    const auto text = [&](Column column) { return std::string(fields[column]); };
    sentence_.words.push_back({.form = text(form),
                               .lemma = text(lemma),
                               .upos = text(upos),
                               .xpos = text(xpos),
                               .feats = text(feats),
                               .head = head_id,
                               .deprel = text(deprel),
                               .deps = text(deps),
                               .misc = text(misc)});
  }

  void end_sentence() {
    if (sentence_.words.empty()) in_.fail("the end of a sentence without words");
    if (last_reference_.word >= next_id())
      in_.fail_file(fmt::format("line {}: it refers to word {} of a sentence of {}",
                                last_reference_.line, last_reference_.word, next_id() - 1));
    sentences_.push_back(std::exchange(sentence_, {}));
    token_end_ = 0;
    has_token_ = false;
    last_reference_ = {};
  }

  static bool by_word(const Reference& a, const Reference& b) { return a.word < b.word; }

  LineReader in_;
  std::vector<ConlluSentence> sentences_;
  ConlluSentence sentence_;
  Index token_end_ = 0;     // the last word of the last multiword token
  bool has_token_ = false;  // whether the sentence has such a line, or one of an empty node
  Reference last_reference_{};
};

}  // namespace

std::vector<std::string> ConlluSentence::forms() const {
  std::vector<std::string> all;
  std::ranges::transform(words, std::back_inserter(all), &ConlluWord::form);
  return all;
}

std::vector<std::string> ConlluSentence::upos() const {
  std::vector<std::string> all;
  std::ranges::transform(words, std::back_inserter(all), &ConlluWord::upos);
  return all;
}

std::vector<ConlluSentence> read_conllu(const std::filesystem::path& path) {
  return Reader(path).sentences();
}

}  // namespace reel::datasets
