#include <fmt/format.h>

#include <cmath>
#include <new>
#include <numbers>
#include <span>

#include "commands.h"
#include "output.h"
#include "report.h"
#include "trained.h"

namespace reel::char_lm {
namespace {

// Number of characters read at a time; the result does not depend on it.
constexpr std::size_t stretch = 1000;

// The mean loss of each character given all those before it.
template <class Model>
double nats_per_char(const Model& model, std::span<const std::int32_t> tokens) {
  Terminal terminal(stderr);
  typename Model::State state;
  double sum = 0;
  for (std::size_t begin = 0; begin + 1 < tokens.size(); begin += stretch) {
    const std::size_t length = std::min(stretch, tokens.size() - 1 - begin);
    const Shape shape{static_cast<Index>(length), 1};
    auto [logits, next] = model(tensor(shape, tokens.subspan(begin, length)), state);
    const Tensor targets = tensor(shape, tokens.subspan(begin + 1, length));
    sum += cross_entropy(logits, targets).item() * static_cast<double>(length);
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

}  // namespace

int eval(const EvalOptions& options) {
  return with_trained_model(RunDirectory(options.run), [&](const auto& model, const auto& config) {
    const std::vector<std::int32_t> tokens = tokens_of(options, config);
    const double nats = nats_per_char(model, tokens);
    if (!std::isfinite(nats))
      throw ValueError(fmt::format("the loss is {}: the model has diverged", number(nats)));
    const double bits = nats / std::numbers::ln2, perplexity = std::exp(nats);
    print(options.json ? fmt::format("{{\"chars\": {}, \"nats_per_char\": {}, \"bits_per_char\": "
                                     "{}, \"perplexity\": {}}}\n",
                                     tokens.size() - 1, nats, bits, perplexity)
                       : fmt::format("{:.4f} nats/char\n{:.4f} bits/char\n{:.4f} perplexity\n",
                                     nats, bits, perplexity));
    return 0;
  });
}

}  // namespace reel::char_lm
