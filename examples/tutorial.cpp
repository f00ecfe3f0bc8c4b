// The code of docs/tutorial.md, from a tensor to a tagger: tutorial [SECTION]
#include <cmath>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>

#include <reel/reel.h>

using namespace reel;

namespace {

void tensors() {
  // [tensors]
  const Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor row = tensor({3}, {10, 20, 30});
  std::cout << x + row << '\n';                    // the row is added to each row of x
  std::cout << sum(x, 0) << '\n';                  // over the first axis
  std::cout << matmul(x, x, false, true) << '\n';  // x · xᵀ
  std::cout << select(x, 0, 1) << '\n';            // the second row, as x[1]
  // [/tensors]
}

void gradients() {
  // [gradients]
  const Params params(1);
  const Param w = params.create("w", {2}, nn::init::constant(0.5));
  const Tensor x = tensor({2}, {3, -1});

  Tape tape;  // from here on ops are recorded
  const Tensor loss = square(sum(w * x) - 2);
  const Gradients gradients = tape.gradient(loss, params);
  std::cout << "loss " << loss.item() << ", gradient " << gradients["w"] << '\n';
  // [/gradients]
}

void training() {
  // [training]
  Rng rng(1);
  const Tensor x = rng.normal({100, 2});
  const Tensor y = sum(x * tensor({2}, {2, -3}), 1, true) + 1;  // what is to be found

  const Params params(1);
  const nn::Linear line(params, 2, 1);
  optim::Adam adam(params, {.learning_rate = 0.1});
  for (int step = 1; step <= 300; ++step) {
    Tape tape;
    const Tensor loss = mse(line(x), y);
    adam.step(tape.gradient(loss, params));
    if (step == 1 || step == 300)
      std::cout << "step " << step << (loss.item() < 0.001 ? ": as good as 0\n" : ": far off\n");
  }
  for (const double w : line.w.value().to_vector()) std::cout << std::round(w) << ' ';
  std::cout << std::round(line.b.value().item()) << '\n';
  // [/training]
}

void layers() {
  // [layers]
  const Params params(1);
  const nn::Embedding embed(params / "embed", 10, 4);  // 10 symbols, vectors of 4
  const nn::Gru gru(params / "gru", 4, 8);
  const auto [symbols, lengths] =
      datasets::pad(std::vector<std::vector<std::int32_t>>{{3, 1, 4}, {2, 7}}, 0);
  std::cout << symbols << '\n' << lengths << '\n';

  const auto [y, state] = gru(embed(symbols), {.lengths = lengths});
  std::cout << y.shape().str() << ", last state " << state.h.shape().str() << '\n';
  for (const Param& p : params.list()) std::cout << p.name() << ' ' << p.shape().str() << '\n';
  // [/layers]
}

// [sentences]
const std::vector<std::string> sentences{
    "the/DET dog/NOUN sleeps/VERB",
    "a/DET cat/NOUN can/AUX sleep/VERB",
    "the/DET can/NOUN falls/VERB",
    "a/DET fish/NOUN can/AUX swim/VERB",
    "they/PRON fish/VERB",
    "they/PRON can/AUX fish/VERB",
    "they/PRON can/VERB a/DET fish/NOUN",
    "the/DET cat/NOUN can/AUX fish/VERB",
    "the/DET fish/NOUN sleeps/VERB",
    "they/PRON can/VERB the/DET cat/NOUN",
};

using Words = std::vector<std::string>;

// The words of such a line, and their tags.
std::pair<Words, Words> parts_of(const std::string& line) {
  std::pair<Words, Words> parts;
  std::istringstream in(line);
  for (std::string each; in >> each;) {
    parts.first.push_back(each.substr(0, each.find('/')));
    parts.second.push_back(each.substr(each.find('/') + 1));
  }
  return parts;
}
// [/sentences]

// [model]
struct Tagger {
  Tagger(const Params& p, Index words, Index tags)
      : embed(p / "embed", words, 16), rnn(p / "rnn", 16, 16), head(p / "head", 32, tags) {}

  Tensor operator()(const datasets::Padded& words) const {  // i32 [T, B] -> [T, B, tags]
    return head(rnn(embed(words.x), {.lengths = words.lengths}).y);
  }

  nn::Embedding embed;
  nn::Bidirectional<nn::Gru> rnn;
  nn::Linear head;
};
// [/model]

void tagger() {
  // [tagger]
  std::vector<Words> words, tags;
  for (const std::string& line : sentences) {
    const auto [w, t] = parts_of(line);
    words.push_back(w);
    tags.push_back(t);
  }
  const datasets::Labels vocabulary = datasets::Labels::of(words),
                         labels = datasets::Labels::of(tags);
  const auto padded = [](const datasets::Labels& names, const std::vector<Words>& rows) {
    std::vector<std::vector<std::int32_t>> numbers;
    for (const Words& row : rows) numbers.push_back(names.encode(row));
    return datasets::pad(numbers, 0);
  };
  const datasets::Padded x = padded(vocabulary, words), y = padded(labels, tags);
  const Tensor mask = datasets::length_mask(x.lengths, x.x.size(0));

  const Params params(1);
  const Tagger tagger(params, vocabulary.size(), labels.size());
  optim::Adam adam(params, {.learning_rate = 0.01});
  for (int step = 0; step < 100; ++step) {
    Tape tape;
    Gradients gradients = tape.gradient(cross_entropy(tagger(x), y.x, mask), params);
    optim::clip_by_norm(gradients, 5);
    adam.step(gradients);
  }
  std::cout << "right: " << 100 * datasets::accuracy(y.x, argmax(tagger(x)), {.mask = mask})
            << " %\n";

  const Words sentence{"they", "can", "can", "the", "fish"};
  const Tensor found = argmax(tagger(padded(vocabulary, {sentence})));
  for (const std::int32_t tag : found.values<std::int32_t>()) std::cout << labels.name(tag) << ' ';
  std::cout << '\n';
  try {
    padded(vocabulary, {{"they", "swam"}});
  } catch (const ValueError& error) {
    std::cout << error.message() << '\n';
  }
  // [/tagger]
}

void checks() {
  // [checks]
  const Params params(1, f64);  // f32 would be too coarse for differences
  const Tagger tagger(params, 5, 3);
  const datasets::Padded x =
      datasets::pad(std::vector<std::vector<std::int32_t>>{{0, 3, 4}, {2, 1}}, 0);
  const Tensor y = tensor({3, 2}, {0, 1, 2, 0, 1, 0}, i32);
  const Tensor mask = datasets::length_mask(x.lengths, 3, f64);
  const GradientReport report =
      check_gradients([&] { return cross_entropy(tagger(x), y, mask); }, params);
  std::cout << (report.ok ? "every gradient agrees with differences\n" : report.str());
  // [/checks]
}

}  // namespace

int main(int argc, char** argv) try {
  const std::map<std::string, std::function<void()>> sections{
      {"tensors", tensors}, {"gradients", gradients}, {"training", training},
      {"layers", layers},   {"tagger", tagger},       {"checks", checks}};
  if (argc > 2 || (argc == 2 && !sections.contains(argv[1]))) {
    std::cerr << "usage: tutorial [tensors|gradients|training|layers|tagger|checks]\n";
    return 2;
  }
  for (const auto& [name, section] : sections)
    if (argc == 1 || argv[1] == name) section();
} catch (const std::exception& error) {
  return std::cerr << "tutorial: " << error.what() << '\n', 1;
}
