#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <new>
#include <nlohmann/json.hpp>
#include <numbers>
#include <span>
#include <vector>

#include <reel/autograd/engine/table.h>

#include "commands.h"
#include "json_lines.h"
#include "output.h"
#include "trained.h"
#include "training_log.h"

namespace reel::char_lm {
namespace {

// Number of characters read at a time; the result does not depend on it.
constexpr std::size_t stretch = 1000;

// What the characters of one kind cost together.
struct Cost {
  std::int32_t token = 0;
  Index count = 0;
  double nats = 0;
};

void add_costs(const Tensor& logits, std::span<const std::int32_t> targets,
               std::vector<Cost>& costs) {
  const Tensor chosen = tensor(Shape{std::ssize(targets), 1, 1}, targets);
  const std::vector<double> log_p = take_along(log_softmax(logits), chosen, -1).to_vector();
  for (std::size_t i = 0; i < targets.size(); ++i) {
    Cost& cost = costs[static_cast<std::size_t>(targets[i])];
    ++cost.count;
    cost.nats -= log_p[i];
  }
}

// The mean loss of each character given all those before it; adds to the cost of its kind if there
// are any costs.
template <class Model>
double nats_per_char(const Model& model, std::span<const std::int32_t> tokens,
                     std::vector<Cost>& costs) {
  Terminal terminal(stderr);
  typename Model::State state;
  double sum = 0;
  for (std::size_t begin = 0; begin + 1 < tokens.size(); begin += stretch) {
    const std::size_t length = std::min(stretch, tokens.size() - 1 - begin);
    const Shape shape{static_cast<Index>(length), 1};
    auto [logits, next] = model(tensor(shape, tokens.subspan(begin, length)), state);
    const Tensor targets = tensor(shape, tokens.subspan(begin + 1, length));
    sum += cross_entropy(logits, targets).item() * static_cast<double>(length);
    if (!costs.empty()) add_costs(logits, tokens.subspan(begin + 1, length), costs);
    state = std::move(next);
    terminal.redraw(fmt::format("{} %", 100 * (begin + length) / (tokens.size() - 1)));
  }
  return sum / static_cast<double>(tokens.size() - 1);
}

std::vector<std::int32_t> tokens_of(const EvalOptions& options, const RunConfig& config) {
  const std::string text = datasets::read_text(options.text, config.vocabulary.mode());
  try {
    std::vector<std::int32_t> tokens = config.vocabulary.encode(text);
    if (tokens.size() < 2)
      throw ValueError("the text is too short: it takes at least 2 characters to predict one");
    return tokens;
  } catch (const ValueError& error) {
    throw FileError(fmt::format("{}: {}", short_path(options.text), error.message()));
  } catch (const std::bad_alloc&) {
    throw FileError(fmt::format("{}: there is not enough memory for the text; take a part of it",
                                short_path(options.text)));
  }
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

// Of the total, which is 0 where there is only one character.
double share_of(const Cost& cost, double total) { return total > 0 ? cost.nats / total : 0; }

std::string table_of(const std::vector<Cost>& costs, double total,
                     const datasets::Vocabulary& vocabulary) {
  Table table({"character", "count", "mean bits", "share of the total"});
  for (const Cost& cost : costs)
    table.add({datasets::name_of(vocabulary.symbols()[static_cast<std::size_t>(cost.token)],
                                 vocabulary.mode()),
               grouped(cost.count), fmt::format("{:.3f}", bits_of(cost)),
               fmt::format("{:.1f} %", 100 * share_of(cost, total))});
  return table.str();
}

// A byte is the code point of its number.
Json json_of(const std::vector<Cost>& costs, double total, const datasets::Vocabulary& vocabulary) {
  const datasets::Vocabulary characters(vocabulary.symbols(), datasets::TextMode::utf8);
  Json all = Json::array();
  for (const Cost& cost : costs)
    all.push_back({{"character", characters.decode({&cost.token, 1})},
                   {"count", cost.count},
                   {"bits", bits_of(cost)},
                   {"share", share_of(cost, total)}});
  return all;
}

}  // namespace

int eval(const EvalOptions& options) {
  return with_trained_model(
      RunDirectory(options.run), options.checkpoint, [&](const auto& model, const auto& config) {
        const std::vector<std::int32_t> tokens = tokens_of(options, config);
        std::vector<Cost> costs;
        if (options.per_char)
          for (std::int32_t token = 0; token < config.vocabulary.size(); ++token)
            costs.push_back({.token = token});
        const double nats = nats_per_char(model, tokens, costs);
        if (!std::isfinite(nats))
          throw ValueError(fmt::format("the loss is {}: the model has diverged", number(nats)));
        const double bits = nats / std::numbers::ln2, perplexity = std::exp(nats);
        double total = 0;
        for (const Cost& cost : costs) total += cost.nats;
        costs = largest(std::move(costs));
        if (options.json) {
          const std::string chars =
              options.per_char ? fmt::format(", \"per_char\": {}",
                                             json_of(costs, total, config.vocabulary).dump())
                               : "";
          print(
              fmt::format("{{\"chars\": {}, \"nats_per_char\": {}, \"bits_per_char\": {}, "
                          "\"perplexity\": {}{}}}\n",
                          tokens.size() - 1, nats, bits, perplexity, chars));
          return 0;
        }
        print(fmt::format("{:.4f} nats/char\n{:.4f} bits/char\n{:.4f} perplexity\n", nats, bits,
                          perplexity));
        if (options.per_char) print('\n' + table_of(costs, total, config.vocabulary));
        return 0;
      });
}

}  // namespace reel::char_lm
