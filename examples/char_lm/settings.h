#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include <reel/autograd/shape.h>

namespace reel::char_lm {

/// The settings of a run, which `train` accepts and the run stores in its config.json.
struct Settings {
  std::string model = "lstm";
  int layers = 2, hidden = 128, embed = 64;  ///< an embedding of size 0 is one-hot
  double dropout = 0;
  int seq_len = 50;
  int tbptt_update = 0, tbptt_length = 0;  ///< 0: see `complete`
  int batch = 50, epochs = 10;
  std::string optimizer = "adam", schedule = "exponential";
  double decay_rate = 0.99;
  double lr = 2e-3, lr_decay = 0.97;
  int lr_decay_after = 10, warmup = 0;
  double ema = 0;
  double clip = 5, clip_value = 0;
  double train_frac = 0.9, test_frac = 0;
  std::uint64_t seed = 123;
  std::string on_nan = "stop";
  int save_every = 0, keep = 0;
  std::string dtype = "f32", matmul = "f32";
  double init_uniform = 0;  ///< 0: each layer's own initial values
  bool bytes = false;
  std::string level = {};  ///< empty: see `complete`
  int min_count = 1, vocabulary_size = 0;
  std::string normalize = "none";
};

/// One member of Settings, as seen by the command line and config.json.
struct Setting {
  std::string_view name = {};     ///< "seq-len"; "seq_len" in files
  std::string_view group = {};    ///< its group in the help
  std::string_view help = {};     ///< help text
  std::string_view value = {};    ///< placeholder for its value: "N", "rnn|gru|lstm"
  std::string_view allowed = {};  ///< the allowed values, in words
  bool (*allows)(double) = nullptr;
  std::string_view otherwise = {};  ///< in the help, what `complete` makes of it if it is not given
  std::string_view choices = {};    ///< of a name, if its placeholder does not list them
  bool is_recent = false;           ///< runs of earlier versions lack it, and have its default
  bool is_adjustable = false;       ///< may differ when a run is resumed: see `may_change`
};

namespace allowed {
constexpr auto whole = [](double x) { return x >= 1 && x <= 1e6; };
// A checkpoint has up to 17 entries for each layer (gru with adam), and a file at most 250,000: see
// require_storable.
constexpr auto layers = [](double x) { return x >= 1 && x <= 1e4; };
constexpr auto natural = [](double x) { return x >= 0 && x <= 1e6; };
constexpr auto positive = [](double x) { return x > 0 && x < 1e300; };
constexpr auto not_negative = [](double x) { return x >= 0 && x < 1e300; };
constexpr auto rate = [](double x) { return x >= 0 && x < 1; };
constexpr auto part = [](double x) { return x > 0 && x <= 1; };
constexpr auto any = [](double) { return true; };

inline constexpr std::string_view whole_words = "a whole number from 1 to 1000000";
inline constexpr std::string_view positive_words = "a number greater than 0 and below 1e300";
inline constexpr std::string_view optimizers =
    "adam|adamw|nadam|radam|adamax|rmsprop|adagrad|adadelta|lion|sgd";
inline constexpr std::string_view optimizer_words =
    "adam, adamw, nadam, radam, adamax, rmsprop, adagrad, adadelta, lion or sgd";
inline constexpr std::string_view not_negative_words = "a number from 0 to below 1e300";
}  // namespace allowed

/// Calls f(setting, member) for each member: the only list of them.
template <class S, class F>
void each_setting(S& s, F&& f) {
  using namespace allowed;
  f(Setting{"model", "Model", "kind of recurrent layer", "rnn|gru|lstm", "rnn, gru or lstm"},
    s.model);
  f(Setting{"layers", "Model", "number of stacked recurrent layers", "N",
            "a whole number from 1 to 10000", layers},
    s.layers);
  f(Setting{"hidden", "Model", "units in each layer", "N", whole_words, whole}, s.hidden);
  f(Setting{"embed", "Model", "size of an embedding; 0: one-hot", "N",
            "a whole number from 0 to 1000000", natural},
    s.embed);
  f(Setting{"dropout", "Model", "dropout rate between layers", "P",
            "a number from 0 to less than 1", rate},
    s.dropout);
  f(Setting{"dtype", "Model", "element type", "f32|f64", "f32 or f64"}, s.dtype);
  f(Setting{.name = "matmul",
            .group = "Model",
            .help = "factors of products, see below",
            .value = "f32|bf16",
            .allowed = "f32 or bf16",
            .is_recent = true},
    s.matmul);
  f(Setting{.name = "init-uniform",
            .group = "Model",
            .help = "parameters from -X to X; 0: as usual",
            .value = "X",
            .allowed = not_negative_words,
            .allows = not_negative,
            .is_recent = true},
    s.init_uniform);
  f(Setting{.name = "level",
            .group = "Text",
            .help = "what is a symbol",
            .value = "char|byte|word|bpe",
            .allowed = "char, byte, word or bpe",
            .otherwise = "char",
            .is_recent = true},
    s.level);
  f(Setting{"bytes", "Text", "the same as --level byte", "", "true or false"}, s.bytes);
  f(Setting{.name = "min-count",
            .group = "Text",
            .help = "rarer words are <unk>, with --level word",
            .value = "N",
            .allowed = whole_words,
            .allows = whole,
            .is_recent = true},
    s.min_count);
  f(Setting{.name = "vocabulary-size",
            .group = "Text",
            .help = "most words (0: any) or tokens",
            .value = "N",
            .allowed = "a whole number from 0 to 1000000",
            .allows = natural,
            .otherwise = "0; 1000",
            .is_recent = true},
    s.vocabulary_size);
  f(Setting{.name = "normalize",
            .group = "Text",
            .help = "normal form of Unicode",
            .value = "none|nfc|nfkc",
            .allowed = "none, nfc or nfkc",
            .is_recent = true},
    s.normalize);
  f(Setting{"train-frac", "Text", "fraction to train on; rest validates", "P",
            "a number greater than 0, at most 1", part},
    s.train_frac);
  f(Setting{.name = "test-frac",
            .group = "Text",
            .help = "fraction at the end to test on",
            .value = "P",
            .allowed = "a number from 0 to less than 1",
            .allows = rate,
            .is_recent = true},
    s.test_frac);
  f(Setting{"seq-len", "Text", "time steps of a window", "N", whole_words, whole}, s.seq_len);
  f(Setting{"tbptt-update", "Text", "time steps between two updates", "N", whole_words, whole,
            "seq-len"},
    s.tbptt_update);
  f(Setting{"tbptt-length", "Text", "time steps an update looks back", "N", whole_words, whole,
            "seq-len"},
    s.tbptt_length);
  f(Setting{"batch", "Text", "mini-batch size: parallel streams", "N", whole_words, whole},
    s.batch);
  f(Setting{.name = "epochs",
            .group = "Training",
            .help = "passes over the text",
            .value = "N",
            .allowed = whole_words,
            .allows = whole,
            .is_adjustable = true},
    s.epochs);
  f(Setting{.name = "optimizer",
            .group = "Training",
            .help = "optimizer, see below",
            .value = "NAME",
            .allowed = optimizer_words,
            .choices = optimizers},
    s.optimizer);
  f(Setting{.name = "decay-rate",
            .group = "Training",
            .help = "of the mean of squares in rmsprop",
            .value = "P",
            .allowed = "a number from 0 to less than 1",
            .allows = rate,
            .is_recent = true},
    s.decay_rate);
  f(Setting{"lr", "Training", "learning rate", "X", positive_words, positive}, s.lr);
  f(Setting{.name = "schedule",
            .group = "Training",
            .help = "how the rate falls, see below",
            .value = "NAME",
            .allowed = "constant, exponential, cosine or plateau",
            .choices = "constant|exponential|cosine|plateau",
            .is_recent = true},
    s.schedule);
  f(Setting{"lr-decay", "Training", "factor of the rate per epoch ...", "X", positive_words,
            positive},
    s.lr_decay);
  f(Setting{"lr-decay-after", "Training", "... after this one", "N",
            "a whole number from 0 to 1000000", natural},
    s.lr_decay_after);
  f(Setting{.name = "warmup",
            .group = "Training",
            .help = "steps in which the rate rises first",
            .value = "N",
            .allowed = "a whole number from 0 to 1000000",
            .allows = natural,
            .is_recent = true},
    s.warmup);
  f(Setting{.name = "ema",
            .group = "Training",
            .help = "decay of the weights' average; 0: none",
            .value = "P",
            .allowed = "a number from 0 to less than 1",
            .allows = rate,
            .is_recent = true},
    s.ema);
  f(Setting{"clip", "Training", "maximum gradient norm; 0: no limit", "X", not_negative_words,
            not_negative},
    s.clip);
  f(Setting{.name = "clip-value",
            .group = "Training",
            .help = "limit of its elements; 0: no limit",
            .value = "X",
            .allowed = not_negative_words,
            .allows = not_negative,
            .is_recent = true},
    s.clip_value);
  f(Setting{.name = "on-nan",
            .group = "Training",
            .help = "if a loss is not finite, see below",
            .value = "stop|skip|rollback",
            .allowed = "stop, skip or rollback",
            .is_recent = true,
            .is_adjustable = true},
    s.on_nan);
  f(Setting{.name = "save-every",
            .group = "Training",
            .help = "steps between saves; 0: a minute",
            .value = "N",
            .allowed = "a whole number from 0 to 1000000",
            .allows = natural,
            .is_recent = true,
            .is_adjustable = true},
    s.save_every);
  f(Setting{.name = "keep",
            .group = "Training",
            .help = "saves to keep beside last and best",
            .value = "N",
            .allowed = "a whole number from 0 to 1000000",
            .allows = natural,
            .is_recent = true,
            .is_adjustable = true},
    s.keep);
  f(Setting{"seed", "Training", "seed of all random numbers", "N",
            "a whole number of 64 bits, 0 or more", any},
    s.seed);
}

/// Whether a run may be resumed with another value.
bool may_change(const Setting& setting, const Settings& run);

/// "seq_len" for "seq-len".
std::string key_of(const Setting& setting);

/// Sets a member from text on the command line or in a file. Throws ValueError saying what is
/// allowed.
void assign(const Setting& setting, const std::string& text, std::string& value);
void assign(const Setting& setting, const std::string& text, int& value);
void assign(const Setting& setting, const std::string& text, std::uint64_t& value);
void assign(const Setting& setting, const std::string& text, double& value);
void assign(const Setting& setting, const std::string& text, bool& value);

/// Throws ValueError: what the value is, and what is allowed.
[[noreturn]] void refuse(const Setting& setting, std::string_view value);

/// The names of settings that were given.
using Given = std::set<std::string>;

/// Gives tbptt_update and tbptt_length the value of seq_len where they are 0, and seq_len that of
/// tbptt_update if it is not given but both others are; level and bytes that of each other, and
/// with level bpe vocabulary_size 1000 for 0; clip 0 if clip_value is given without it. Throws
/// ValueError if all three lengths are given and seq_len is neither of the others, for settings of
/// a text that its level does not have, and for parts of the text that are more than all of it.
void complete(Settings& settings, const Given& given);
/// The `given` of settings that are complete already.
inline const Given all_given = {"seq-len", "clip"};

/// Whether the parts for training and testing leave text for validation.
bool has_validation(const Settings& settings);
/// "--train-frac 0.8 and --test-frac 0.1", or without the latter if it is 0.
std::string parts_in_words(const Settings& settings);

/// Throws ValueError for settings of a new run that contradict each other; `given` are those that
/// were given.
void require_consistent(const Settings& settings, const Given& given);

/// What a symbol of a level is called.
struct Unit {
  std::string_view name;   ///< "character", "byte", "word", "token"
  std::string_view brief;  ///< in "nats/char" and "chars/s"
};
Unit unit_of(std::string_view level);

/// What an update looks back over before its own steps, if it does, and what is to be run again
/// when a run resumes: max(0, tbptt_length - tbptt_update) steps, or all of the `done` ones if
/// these are fewer.
Index steps_looked_back(const Settings& settings, Index done);
/// The number of the intervals between updates that they are in.
Index earlier_updates(const Settings& settings, Index done);

/// The settings as texts by name, from which `assign` makes the same values.
std::map<std::string, std::string> texts_of(const Settings& settings);

}  // namespace reel::char_lm
