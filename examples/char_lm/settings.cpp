#include "settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>

namespace reel::char_lm {
namespace {

template <class T>
void assign_number(const Setting& setting, std::string_view text, T& value) {
  const char* end = text.data() + text.size();
  T number{};
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end || !setting.allows(static_cast<double>(number)))
    refuse(setting, in_quotes(text));
  value = number;
}

// Whether `text` is one of "a|b|c".
bool is_choice(std::string_view choices, std::string_view text) {
  while (true) {
    const std::size_t bar = choices.find('|');
    if (choices.substr(0, bar) == text) return true;
    if (bar == std::string_view::npos) return false;
    choices.remove_prefix(bar + 1);
  }
}

// A sum such as 0.7 + 0.1 + 0.2 is not exactly 1.
constexpr double rounding = 1e-12;

// The level, which runs of earlier versions have as `bytes`, and what depends on it.
void complete_level(Settings& s) {
  if (s.bytes && !s.level.empty() && s.level != "byte")
    throw ValueError(fmt::format("bytes contradicts level {}; leave out one of them", s.level));
  if (s.level.empty()) s.level = s.bytes ? "byte" : "char";
  s.bytes = s.level == "byte";
  if (s.level == "bpe" && s.vocabulary_size == 0) s.vocabulary_size = 1000;
  const int least = s.level == "word" ? 3 : s.level == "bpe" ? 256 : 0;
  if (s.vocabulary_size != 0 && s.vocabulary_size < least)
    throw ValueError(fmt::format(
        "vocabulary-size {} is too small for level {}, which has {}; give {} or more",
        s.vocabulary_size, s.level,
        s.level == "word" ? "<unk>, the end of a line and words" : "a token for every byte",
        least));
  if (s.level == "byte" && s.normalize != "none")
    throw ValueError(
        fmt::format("normalize {} is for characters, and contradicts level byte; leave "
                    "out one of them",
                    s.normalize));
}

}  // namespace

void refuse(const Setting& setting, std::string_view value) {
  throw ValueError(fmt::format("{} is {}, but has to be {}", setting.name, value, setting.allowed));
}

// With a cosine the number of epochs is the length of its wave.
bool may_change(const Setting& setting, const Settings& run) {
  return setting.is_adjustable && !(setting.name == "epochs" && run.schedule == "cosine");
}

std::string key_of(const Setting& setting) {
  std::string key(setting.name);
  std::ranges::replace(key, '-', '_');
  return key;
}

void assign(const Setting& setting, const std::string& text, std::string& value) {
  if (!is_choice(setting.choices.empty() ? setting.value : setting.choices, text))
    refuse(setting, in_quotes(text));
  value = text;
}

void assign(const Setting& setting, const std::string& text, int& value) {
  assign_number(setting, text, value);
}

void assign(const Setting& setting, const std::string& text, std::uint64_t& value) {
  assign_number(setting, text, value);
}

void assign(const Setting& setting, const std::string& text, double& value) {
  assign_number(setting, text, value);
}

void assign(const Setting& setting, const std::string& text, bool& value) {
  if (text != "true" && text != "false") refuse(setting, in_quotes(text));
  value = text == "true";
}

bool has_validation(const Settings& s) {
  return s.test_frac == 0 ? s.train_frac < 1 : s.train_frac + s.test_frac < 1 - rounding;
}

void complete(Settings& s, const Given& given) {
  if (s.train_frac + s.test_frac > 1 + rounding)
    throw ValueError(fmt::format(
        "train-frac {} and test-frac {} are more than the whole text; give smaller ones",
        s.train_frac, s.test_frac));
  if (s.tbptt_update != 0 && s.tbptt_length != 0) {
    if (!given.contains("seq-len"))
      s.seq_len = s.tbptt_update;
    else if (s.seq_len != s.tbptt_update && s.seq_len != s.tbptt_length)
      throw ValueError(fmt::format(
          "seq-len {} contradicts tbptt-update {} and tbptt-length {}, whose value it is where one "
          "is left out; leave out seq-len, or one of them",
          s.seq_len, s.tbptt_update, s.tbptt_length));
  }
  if (s.tbptt_update == 0) s.tbptt_update = s.seq_len;
  if (s.tbptt_length == 0) s.tbptt_length = s.seq_len;
  complete_level(s);
  if (s.matmul == "bf16" && s.dtype == "f64")
    throw ValueError("matmul bf16 rounds f32, and contradicts dtype f64; leave out one of them");
  if (given.contains("clip-value") && s.clip_value > 0 && !given.contains("clip")) s.clip = 0;
}

void require_consistent(const Settings& s, const Given& given) {
  for (const char* name : {"lr-decay", "lr-decay-after"})
    if (given.contains(name) && s.schedule != "exponential")
      throw ValueError(
          fmt::format("{} is of --schedule exponential; leave it out with {}", name, s.schedule));
  if (given.contains("decay-rate") && s.optimizer != "rmsprop")
    throw ValueError(
        fmt::format("decay-rate is of --optimizer rmsprop; leave it out with {}", s.optimizer));
  if (given.contains("min-count") && s.level != "word")
    throw ValueError(
        fmt::format("min-count is of --level word; leave it out with --level {}", s.level));
  if (given.contains("vocabulary-size") && s.level != "word" && s.level != "bpe")
    throw ValueError(fmt::format(
        "vocabulary-size is of --level word and bpe; leave it out with --level {}", s.level));
  if (s.schedule == "plateau" && !has_validation(s))
    throw ValueError(
        fmt::format("schedule plateau follows the validation loss, but {} leaves no text for it",
                    parts_in_words(s)));
}

std::string parts_in_words(const Settings& s) {
  const std::string train = fmt::format("--train-frac {}", s.train_frac);
  return s.test_frac == 0 ? train : fmt::format("{} and --test-frac {}", train, s.test_frac);
}

Unit unit_of(std::string_view level) {
  if (level == "byte") return {"byte", "byte"};
  if (level == "word") return {"word", "word"};
  if (level == "bpe") return {"token", "token"};
  return {"character", "char"};
}

Index steps_looked_back(const Settings& s, Index done) {
  return std::min<Index>(done, std::max(0, s.tbptt_length - s.tbptt_update));
}

Index earlier_updates(const Settings& s, Index done) {
  return (steps_looked_back(s, done) + s.tbptt_update - 1) / s.tbptt_update;
}

std::map<std::string, std::string> texts_of(const Settings& settings) {
  std::map<std::string, std::string> texts;
  each_setting(settings, [&](const Setting& setting, const auto& value) {
    texts.emplace(setting.name, fmt::format("{}", value));
  });
  return texts;
}

}  // namespace reel::char_lm
