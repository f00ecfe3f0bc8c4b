#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/message.h>

#include "../support/system.h"
#include "commands.h"
#include "output.h"
#include "trained.h"
#include "writer.h"

namespace reel::char_lm {
namespace {

nn::Sampling sampling_of(const SampleOptions& options) {
  return {.repetition_penalty = options.repetition_penalty,
          .temperature = options.temperature,
          .top_k = options.top_k,
          .top_p = options.top_p,
          .min_p = options.min_p};
}

// Prints each symbol as soon as it is chosen, after a text that ends with `before`.
template <class Model>
void write(Writer<Model>& writer, const Vocabulary& vocabulary, const SampleOptions& options,
           Rng& rng, char before) {
  for (int i = 0; i < options.length; ++i) {
    const std::string text = vocabulary.text(writer.write(sampling_of(options), rng), before);
    print(text);
    before = text.back();
  }
}

char last_of(std::string_view text) { return text.empty() ? '\n' : text.back(); }

// Reads what the text begins with, and returns it.
template <class Model>
std::string read_prime(Writer<Model>& writer, const RunConfig& config,
                       const SampleOptions& options) try {
  const std::string prime = normalized(options.prime, config.settings);
  const std::vector<std::int32_t> tokens = config.vocabulary->encode_prime(prime);
  for (const std::int32_t token : tokens) writer.read(token);
  if (tokens.empty()) writer.read(config.vocabulary->first());
  return prime;
} catch (const ValueError& error) {
  throw ValueError(fmt::format("--prime: {}", error.message()));
}

template <class Model>
int write_once(const Model& model, const RunConfig& config, const SampleOptions& options) {
  Rng rng(options.seed);
  Writer<Model> writer(model);
  const std::string prime = read_prime(writer, config, options);
  print(prime);
  write(writer, *config.vocabulary, options, rng, last_of(prime));
  if (examples::is_terminal(stdout)) print("\n");  // so that the shell prompt begins a new line
  return 0;
}

// Reads lines and continues each; with an empty one goes on with the text.
template <class Model>
class Conversation {
 public:
  Conversation(const Model& model, const RunConfig& config, const SampleOptions& options)
      : config_(config), options_(options), rng_(options.seed), writer_(model) {
    read_prime(writer_, config, options);
  }

  int operator()() {
    const bool is_terminal = examples::is_terminal(stdin);
    while (true) {
      if (is_terminal) print("> ");
      std::string line;
      if (!read_line(line) || line == ":quit") return 0;
      try {
        line.starts_with(':') ? set(line) : proceed(line);
      } catch (const ValueError& error) {
        print(fmt::format("{}\n", printable(error.message(), 400)));
      }
    }
  }

 private:
  static constexpr std::size_t longest_line = 1 << 20;

  // Throws FileError for an endless line.
  static bool read_line(std::string& line) {
    for (int c = std::cin.get(); c != EOF; c = std::cin.get()) {
      if (c == '\n') return true;
      if (line.size() == longest_line)
        throw FileError("standard input: the line is longer than 1 MiB; give shorter ones");
      line += static_cast<char>(c);
    }
    return !line.empty();
  }

  void proceed(const std::string& line) {
    const std::string text = normalized(line, config_.settings);
    for (const std::int32_t token : config_.vocabulary->encode_prime(text)) writer_.read(token);
    print(text);
    write(writer_, *config_.vocabulary, options_, rng_, last_of(text));
    print("\n");
  }

  void set(const std::string& line) {
    const std::size_t space = std::min(line.find(' '), line.size());
    const std::string name = line.substr(1, space - 1);
    const std::string value = line.substr(std::min(space + 1, line.size()));
    if (name == "temperature") {
      assign({.name = "temperature",
              .allowed = allowed::not_negative_words,
              .allows = allowed::not_negative},
             value, options_.temperature);
    } else if (name == "seed") {
      assign({.name = "seed",
              .allowed = "a whole number of 64 bits, 0 or more",
              .allows = allowed::any},
             value, options_.seed);
      rng_ = Rng(options_.seed);
    } else {
      throw ValueError(fmt::format("{} is unknown; there are :temperature X, :seed S and :quit",
                                   in_quotes(":" + name)));
    }
  }

  const RunConfig& config_;
  SampleOptions options_;
  Rng rng_;
  Writer<Model> writer_;
};

}  // namespace

int sample(const SampleOptions& options) {
  return with_trained_model(RunDirectory(options.run), options.checkpoint,
                            [&](const auto& model, const auto& config) {
                              if (options.interactive)
                                return Conversation(model, config, options)();
                              return write_once(model, config, options);
                            });
}

}  // namespace reel::char_lm
