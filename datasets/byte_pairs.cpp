#include <reel/datasets/byte_pairs.h>

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>
#include <utility>

#include <reel/autograd/message.h>
#include <reel/datasets/line_reader.h>
#include <reel/datasets/pair_counts.h>
#include <reel/nn/files/atomic_file.h>

namespace reel::datasets {
namespace {

// Calls f with every word of a text: up to and with the next whitespace.
template <class F>
void each_word(std::string_view text, F f) {
  while (!text.empty()) {
    const std::size_t space = text.find_first_of(" \t\n\v\f\r");
    const std::size_t length = space == std::string_view::npos ? text.size() : space + 1;
    f(text.substr(0, length));
    text.remove_prefix(length);
  }
}

// The symbols of one word, in which pairs are replaced by tokens.
class Word {
 public:
  using TokenOf = std::unordered_map<std::uint64_t, std::int32_t>;

  Word(std::string_view bytes, const TokenOf& token_of) : token_of_(token_of) {
    for (const char byte : bytes)
      parts_.push_back({static_cast<unsigned char>(byte), parts_.size() + 1, parts_.size() - 1});
    for (std::size_t i = 0; i < parts_.size(); ++i) enqueue(i);
  }

  // Replaces pairs in the order of their tokens, then of their places, and appends what is left.
  void encode_to(std::vector<std::int32_t>& tokens) {
    while (!queue_.empty()) {
      const auto [token, i] = queue_.top();
      queue_.pop();
      if (token_at(i) == token) merge(i, token);
    }
    for (std::size_t i = 0; i < parts_.size(); i = parts_[i].next)
      tokens.push_back(parts_[i].symbol);
  }

 private:
  static constexpr std::int32_t none = -1;
  struct Part {
    std::int32_t symbol;  // none where it was merged into the one before
    std::size_t next, previous;
  };

  // The token of the pair that begins at a part; none if there is no such token.
  std::int32_t token_at(std::size_t i) const {
    if (i >= parts_.size() || parts_[i].next >= parts_.size()) return none;
    const auto found = token_of_.find(pair_key(parts_[i].symbol, parts_[parts_[i].next].symbol));
    return found == token_of_.end() ? none : found->second;
  }
  void enqueue(std::size_t i) {
    if (const std::int32_t token = token_at(i); token != none) queue_.push({token, i});
  }
  void merge(std::size_t i, std::int32_t token) {
    Part& right = parts_[parts_[i].next];
    parts_[i].symbol = token;
    parts_[i].next = right.next;
    right.symbol = none;
    if (right.next < parts_.size()) parts_[right.next].previous = i;
    enqueue(parts_[i].previous);
    enqueue(i);
  }

  const TokenOf& token_of_;
  std::vector<Part> parts_;
  using Entry = std::pair<std::int32_t, std::size_t>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue_;
};

}  // namespace

BytePairs::BytePairs() {
  for (Index byte = 0; byte < bytes; ++byte) tokens_.emplace_back(1, static_cast<char>(byte));
}

BytePairs BytePairs::train(std::string_view text, Arg<Index> size, Site site) {
  if (size < bytes || size > most)
    throw ValueError(
        fmt::format("BytePairs: the size is {}, not in {} .. {}", Index(size), bytes, most), site);
  std::vector<std::string_view> words;
  std::vector<Index> counts;
  std::unordered_map<std::string_view, std::size_t> numbers;
  std::size_t length = 0;
  each_word(text, [&](std::string_view word) {
    const auto [place, is_new] = numbers.try_emplace(word, words.size());
    if (is_new) {
      words.push_back(word);
      counts.push_back(0);
      length += word.size();
    }
    ++counts[place->second];
  });
  if (length > std::numeric_limits<std::int32_t>::max())
    throw ValueError(fmt::format("BytePairs: the different words of the text have {} bytes, more "
                                 "than 2^31 - 1; train on a part of it",
                                 length),
                     site);
  BytePairs learned;
  PairCounts pairs(words, counts);
  while (learned.size() < size) {
    const auto best = pairs.most_frequent();
    if (!best) break;
    const Pair pair{best->left, best->right};
    if (learned.can_append(pair)) {
      pairs.merge(*best, static_cast<std::int32_t>(learned.size()));
      learned.append(pair);
    } else {
      pairs.ignore(*best);
    }
  }
  return learned;
}

BytePairs BytePairs::load(const std::filesystem::path& path) {
  LineReader in(path);
  const Index count = in.read_title("byte_pairs", 0, most - bytes);
  BytePairs loaded;
  while (in.next()) {
    if (loaded.size() == bytes + count)
      in.fail(fmt::format("more than the {} pairs of line 1", count));
    Pair pair{};
    const auto fields = fields_of(in.line(), ' ');
    if (fields.size() != 2) in.fail("not two tokens with a space between them");
    for (std::size_t i = 0; i < 2; ++i) {
      const auto token = whole_number(fields[i]);
      if (!token || *token >= loaded.size())
        in.fail(fmt::format("{} is no token before {}", in_quotes(fields[i]), loaded.size()));
      pair[i] = static_cast<std::int32_t>(*token);
    }
    if (!loaded.can_append(pair))
      in.fail(fmt::format("the pair occurs twice, or has more than {} bytes", longest));
    loaded.append(pair);
  }
  if (loaded.size() < bytes + count)
    in.fail_file(
        fmt::format("cut off: it has {} of the {} pairs of line 1", loaded.size() - bytes, count));
  return loaded;
}

void BytePairs::save(const nn::Location& where) const {
  std::string text = fmt::format("byte_pairs {}\n", pairs_.size());
  for (const Pair& pair : pairs_) text += fmt::format("{} {}\n", pair[0], pair[1]);
  nn::write_file(where, text);
}

const std::string& BytePairs::token(Arg<Index> token, Site site) const {
  if (token < 0 || token >= size())
    throw ValueError(
        fmt::format("there is no token {} in a vocabulary of {}", Index(token), size()), site);
  return tokens_[static_cast<std::size_t>(token)];
}

std::vector<std::int32_t> BytePairs::encode(std::string_view text) const {
  std::vector<std::int32_t> tokens;
  struct Range {
    std::size_t begin, size;
  };
  std::unordered_map<std::string_view, Range> encoded;  // where among the tokens each word is
  each_word(text, [&](std::string_view word) {
    const auto [place, is_new] = encoded.try_emplace(word, Range{tokens.size(), 0});
    Range& range = place->second;
    if (is_new) {
      Word(word, token_of_).encode_to(tokens);
      range.size = tokens.size() - range.begin;
    } else {
      for (std::size_t i = 0; i < range.size; ++i) tokens.push_back(tokens[range.begin + i]);
    }
  });
  return tokens;
}

std::string BytePairs::decode(std::span<const std::int32_t> tokens, Site site) const {
  std::string text;
  for (const std::int32_t number : tokens) text += token(number, site);
  return text;
}

bool BytePairs::can_append(Pair pair) const {
  const auto length = [&](std::int32_t token) {
    return tokens_[static_cast<std::size_t>(token)].size();
  };
  return length(pair[0]) + length(pair[1]) <= longest &&
         !token_of_.contains(pair_key(pair[0], pair[1]));
}

void BytePairs::append(Pair pair) {
  token_of_.emplace(pair_key(pair[0], pair[1]), static_cast<std::int32_t>(size()));
  tokens_.push_back(token(pair[0]) + token(pair[1]));
  pairs_.push_back(pair);
}

}  // namespace reel::datasets
