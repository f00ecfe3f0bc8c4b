// Trains a character-level language model on a text, then lets it write: min_char_lm [input.txt]
#include <reel/reel.h>
#include <iostream>
using namespace reel;

int main(int argc, char** argv) try {
  const std::string text = datasets::read_text(argc > 1 ? argv[1] : "input.txt");
  const datasets::Vocabulary vocabulary(text, datasets::TextMode::utf8);
  const std::vector<std::int32_t> tokens = vocabulary.encode(text);
  const datasets::Windows windows(tokens, 50, 50);  // 50 streams side by side, 50 steps at a time

  Params params(123);
  const nn::Embedding embed(params / "embed", vocabulary.size(), 64);
  const nn::Stacked<nn::Gru> rnn(params / "rnn", 64, 128, {.layers = 2});
  const nn::Linear head(params / "head", 128, vocabulary.size());
  optim::Adam adam(params, {.learning_rate = 2e-3});

  for (int epoch = 1; epoch <= 3; ++epoch) {
    nn::Stacked<nn::Gru>::State state;  // zeros
    for (const auto& [inputs, targets] : windows) {
      Tape tape;
      const auto [y, next] = rnn(embed(inputs), state);
      const Tensor loss = cross_entropy(head(y), targets);
      Gradients gradients = tape.gradient(loss, params);
      optim::clip_by_norm(gradients, 5);
      adam.step(gradients);
      state = detach(next);  // the value goes on, the gradient stops here
      std::cout << "\repoch " << epoch << ", loss " << loss.item() << std::flush;
    }
  }
  Rng rng(1);
  const nn::Stepper step(embed, rnn);  // their weights packed, for one token at a time
  auto last = step(full({1}, tokens[0], i32));
  for (int i = 0; i < 500; ++i) {
    const std::int32_t token = nn::sample(head(last.y), {.temperature = 0.8}, rng);
    std::cout << (i == 0 ? "\n" : "") << vocabulary.decode({{token}});
    last = step(full({1}, token, i32), last.state);
  }
} catch (const std::exception& error) {
  return std::cerr << "\nmin_char_lm: " << error.what() << '\n', 1;
}
