#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>
#include <span>
#include <vector>

#include <reel/autograd/engine/table.h>

#include "commands.h"
#include "json_lines.h"
#include "output.h"
#include "run_text.h"
#include "trained.h"
#include "training_log.h"

namespace reel::char_lm {
namespace {

// Number of symbols read at a time; the result does not depend on it.
constexpr Index stretch = 1000;

// What the symbols of one kind cost together.
struct Cost {
  std::int32_t token = 0;
  Index count = 0;
  double nats = 0;
};

using Tokens = std::span<const std::int32_t>;

// With a large vocabulary the logits of a stretch would be most of the memory.
constexpr Index most_logits = 1 << 20;

// Adds the losses of the targets, given the outputs [T, 1, H] of the model before its head.
void add_costs(const nn::Linear& head, const Tensor& y, Tokens targets, std::vector<Cost>& costs) {
  const Index rows = std::max<Index>(1, most_logits / std::ssize(costs));
  for (Index begin = 0; begin < y.size(0); begin += rows) {
    const Index end = std::min(y.size(0), begin + rows);
    const Tokens part =
        targets.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    const Tensor log_p = log_softmax(head(slice(y, 0, begin, end)));
    const Tensor chosen = take_along(log_p, tensor(Shape{end - begin, 1, 1}, part), -1);
    for (std::size_t i = 0; const double nats : chosen.to_vector()) {
      Cost& cost = costs[static_cast<std::size_t>(part[i++])];
      ++cost.count;
      cost.nats -= nats;
    }
  }
}

// The sums over all symbols of a text but the first.
struct Total {
  double nats = 0;
  std::size_t bytes = 0;
};

// Reads the text once; adds to the costs of its kinds of symbols if there are any.
template <class Model>
Total total_of(const Model& model, const datasets::TokenSource& source,
               const Vocabulary& vocabulary, std::vector<Cost>& costs) {
  Terminal terminal(stderr);
  typename Model::State state;
  Total total;
  const Index predicted = source.size() - 1;
  for (Index begin = 0; begin < predicted; begin += stretch) {
    const Index length = std::min(stretch, predicted - begin);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(length) + 1);
    source.read(begin, tokens);
    const Tokens inputs = Tokens(tokens).first(tokens.size() - 1), next = Tokens(tokens).subspan(1);
    auto [y, last] = model.rnn(model.embed(tensor(Shape{length, 1}, inputs)), state);
    const Tensor loss = model.loss_of(y, tensor(Shape{length, 1}, next));
    total.nats += loss.item() * static_cast<double>(length);
    if (!costs.empty()) add_costs(model.head, y, next, costs);
    if (vocabulary.has_bits_per_byte())
      for (const std::int32_t token : next) total.bytes += vocabulary.text(token).size();
    state = std::move(last);
    terminal.redraw(fmt::format("{} %", 100 * (begin + length) / predicted));
  }
  return total;
}

Corpus corpus_of(const std::filesystem::path& path, const RunConfig& config) {
  const Settings& settings = config.settings;
  const Text text = find_text(path, settings, is_large(path, settings));
  Corpus corpus = corpus_of(text, settings, config.vocabulary);
  if (corpus.tokens->size() < 2)
    throw FileError(fmt::format("{}: the text is too short: it takes at least 2 {}s to predict one",
                                short_path(path), unit_of(settings.level).name));
  return corpus;
}

datasets::TokenRange part_of(const Corpus& corpus, const std::string& part,
                             const EvalOptions& options, const Settings& settings) {
  const TextParts parts = split_for(corpus, settings);
  if (part == "train") return parts.train;
  const bool has_it = part == "valid" ? has_validation(settings) : settings.test_frac > 0;
  if (!has_it)
    throw ValueError(fmt::format("--part {}: there is none in the run in {}, which has {}", part,
                                 short_path(options.run), parts_in_words(settings)));
  return part == "valid" ? parts.valid : parts.test;
}

// The kinds that cost most, the most expensive first.
std::vector<Cost> largest(std::vector<Cost> costs) {
  constexpr std::size_t shown = 20;
  std::erase_if(costs, [](const Cost& cost) { return cost.count == 0; });
  std::ranges::stable_sort(costs, std::ranges::greater(), &Cost::nats);
  if (costs.size() > shown) costs.resize(shown);
  return costs;
}

double bits_of(const Cost& cost) {
  return cost.nats / std::numbers::ln2 / static_cast<double>(cost.count);
}

// Of the total, which is 0 where there is only one kind.
double share_of(const Cost& cost, double total) { return total > 0 ? cost.nats / total : 0; }

std::string table_of(const std::vector<Cost>& costs, double total, const RunConfig& config) {
  Table table({std::string(unit_of(config.settings.level).name), "count", "mean bits",
               "share of the total"});
  for (const Cost& cost : costs)
    table.add({config.vocabulary->name(cost.token), grouped(cost.count),
               fmt::format("{:.3f}", bits_of(cost)),
               fmt::format("{:.1f} %", 100 * share_of(cost, total))});
  return table.str();
}

Json json_of(const std::vector<Cost>& costs, double total, const Vocabulary& vocabulary) {
  Json all = Json::array();
  for (const Cost& cost : costs)
    all.push_back({{"character", vocabulary.readable({&cost.token, 1})},
                   {"count", cost.count},
                   {"bits", bits_of(cost)},
                   {"share", share_of(cost, total)}});
  return all;
}

// The results under their names in JSON, of which the text says the unit.
struct Result {
  Index symbols = 0;
  double nats = 0;
  std::optional<double> bits_per_byte = {};

  double bits() const { return nats / std::numbers::ln2; }
  double perplexity() const { return std::exp(nats); }
};

std::string text_of(const Result& result, std::string_view unit) {
  std::string text = fmt::format("{:.4f} nats/{}\n{:.4f} bits/{}\n{:.4f} perplexity\n", result.nats,
                                 unit, result.bits(), unit, result.perplexity());
  if (result.bits_per_byte) text += fmt::format("{:.4f} bits/byte\n", *result.bits_per_byte);
  return text;
}

std::string json_of(const Result& result, const std::string& costs) {
  std::string more;
  if (result.bits_per_byte) more += fmt::format(", \"bits_per_byte\": {}", *result.bits_per_byte);
  if (!costs.empty()) more += fmt::format(", \"per_char\": {}", costs);
  return fmt::format(
      "{{\"chars\": {}, \"nats_per_char\": {}, \"bits_per_char\": {}, \"perplexity\": {}{}}}\n",
      result.symbols, result.nats, result.bits(), result.perplexity(), more);
}

Result result_of(const Total& total, Index symbols) {
  Result result{.symbols = symbols, .nats = total.nats / static_cast<double>(symbols)};
  if (!std::isfinite(result.nats))
    throw ValueError(fmt::format("the loss is {}: the model has diverged", number(result.nats)));
  if (total.bytes > 0)
    result.bits_per_byte = total.nats / std::numbers::ln2 / static_cast<double>(total.bytes);
  return result;
}

}  // namespace

int eval(const EvalOptions& options) {
  return with_trained_model(
      RunDirectory(options.run), options.checkpoint,
      [&](const auto& model, const RunConfig& config) {
        const Corpus corpus = options.part ? text_of_run(config, options.run, options.text)
                                           : corpus_of(options.text.value(), config);
        const datasets::TokenRange tokens =
            options.part ? part_of(corpus, *options.part, options, config.settings)
                         : datasets::TokenRange(*corpus.tokens, 0, corpus.tokens->size());
        std::vector<Cost> costs;
        if (options.per_char)
          for (std::int32_t token = 0; token < config.vocabulary->size(); ++token)
            costs.push_back({.token = token});
        const Total total = total_of(model, tokens, *config.vocabulary, costs);
        const Result result = result_of(total, tokens.size() - 1);
        double nats = 0;
        for (const Cost& cost : costs) nats += cost.nats;
        costs = largest(std::move(costs));
        if (options.json) {
          print(json_of(result,
                        options.per_char ? json_of(costs, nats, *config.vocabulary).dump() : ""));
          return 0;
        }
        print(text_of(result, unit_of(config.settings.level).brief));
        if (options.per_char) print('\n' + table_of(costs, nats, config));
        return 0;
      });
}

}  // namespace reel::char_lm
