#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include <reel/autograd/message.h>
#include <reel/nn/generate/sample.h>
#include <reel/nn/generate/stepper.h>

#include "commands.h"
#include "output.h"
#include "trained.h"

namespace reel::char_lm {
namespace {

using datasets::Vocabulary;

// The tokens of the prime text. Throws ValueError naming characters that the model does not know.
std::vector<std::int32_t> prime_tokens(const std::string& prime, const Vocabulary& vocabulary) {
  if (prime.empty()) return {};
  try {
    const Vocabulary used(prime, vocabulary.mode());
    std::vector<std::string> unknown;
    for (char32_t symbol : used.symbols())
      if (!std::ranges::binary_search(vocabulary.symbols(), symbol))
        unknown.push_back(datasets::name_of(symbol, vocabulary.mode()));
    if (!unknown.empty())
      throw ValueError(fmt::format("the model has never seen {}", listed(unknown, 8)));
    return vocabulary.encode(prime);
  } catch (const ValueError& error) {
    throw ValueError(fmt::format("--prime: {}", error.message()));
  }
}

// The token before a text without a prime: a newline if the vocabulary has one.
std::int32_t first_token(const Vocabulary& vocabulary) {
  const auto newline = std::ranges::find(vocabulary.symbols(), U'\n');
  return newline == vocabulary.symbols().end()
             ? 0
             : static_cast<std::int32_t>(newline - vocabulary.symbols().begin());
}

template <class Model>
int write(const Model& model, const RunConfig& config, const SampleOptions& options) {
  const std::vector<std::int32_t> prime = prime_tokens(options.prime, config.vocabulary);
  const nn::Sampling sampling{
      .temperature = options.temperature, .top_k = options.top_k, .top_p = options.top_p};
  Rng rng(options.seed);
  const nn::Stepper step(model.embed, model.rnn);
  const nn::Stepper predict(model.head);
  nn::Output<typename Model::State> last;
  const auto read = [&](std::int32_t token) { last = step(full({1}, token, i32), last.state); };
  print(options.prime);
  for (std::int32_t token : prime) read(token);
  if (prime.empty()) read(first_token(config.vocabulary));
  for (int i = 0; i < options.length; ++i) {
    const std::int32_t token = nn::sample(predict(last.y), sampling, rng);
    print(config.vocabulary.decode({&token, 1}));
    if (i + 1 < options.length) read(token);
  }
  if (isatty(STDOUT_FILENO)) print("\n");  // so that the shell prompt begins a new line
  return 0;
}

}  // namespace

int sample(const SampleOptions& options) {
  return with_trained_model(RunDirectory(options.run), [&](const auto& model, const auto& config) {
    return write(model, config, options);
  });
}

}  // namespace reel::char_lm
