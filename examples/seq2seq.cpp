// From a sequence to another of a different length: an encoder reads it from both sides, a decoder
// writes the other one symbol by symbol, and at each step attends to the places of the first that
// matter (Bahdanau et al., 2015; here with the queries after the recurrence, as Luong et al.,
// 2015).
#include <fmt/format.h>

#include <iostream>

#include <reel/nn/files/atomic_file.h>
#include <reel/reel.h>

#include "support/heat_map.h"
#include "support/program.h"
#include "support/string_tasks.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings {
  std::string task = "dates", attention = "additive", map, save;
  Index hidden = 128, batch = 64, steps = 100, epochs = 30, beams = 4, seed = 1;
  double learning_rate = 3e-3;
};

// The state of the decoder: its own, and what it attends to.
struct DecoderState {
  nn::HiddenState rnn;
  nn::AttentionMemory memory;
  DecoderState map(auto&& f) const { return {rnn.map(f), memory.map(f)}; }
};

template <class Attention>
struct Model {
  Model(const Params& p, const Settings& s, const Attention& attention)
      : embed(p / "embed", string_symbols, s.hidden / 4),
        encoder(p / "encoder", s.hidden / 4, s.hidden, nn::BidirectionalOptions{nn::Merge::sum}),
        decoder(p / "decoder", s.hidden / 4, s.hidden),
        attention(attention),
        mix(p / "mix", 2 * s.hidden, s.hidden),
        head(p / "head", s.hidden, string_symbols) {}

  DecoderState encode(const datasets::Padded& from) const {
    const auto [y, last] = encoder(embed(from.x), {.lengths = from.lengths});
    return {{last.backward.h}, attention.memory(y, from.lengths)};
  }
  // The logits after the decoder's outputs y, [Q, B, H] or [B, H], and the weights of the places.
  std::pair<Tensor, Tensor> decode(const Tensor& y, const nn::AttentionMemory& memory) const {
    const auto [context, weights] = attention(y, memory);
    return {head(tanh(mix(concat({y, context}, -1)))), weights};
  }

  // The same for a whole batch, whose right outputs the decoder reads (teacher forcing).
  std::pair<Tensor, Tensor> operator()(const StringBatch& batch) const {
    const DecoderState state = encode(batch.from);
    return decode(decoder(embed(batch.inputs.x), state.rnn).y, state.memory);
  }

  nn::Embedding embed;
  nn::Bidirectional<nn::Gru> encoder;
  nn::Gru decoder;
  Attention attention;
  nn::Linear mix, head;
};

template <class Attention>
std::vector<std::string> translated(const Model<Attention>& model, const StringBatch& batch,
                                    Index beams) {
  const nn::Stepper step(model.embed, model.decoder);
  const auto next = [&](const Tensor& tokens, const DecoderState& state) {
    const auto [y, rnn] = step(tokens, state.rnn);
    return nn::Output<DecoderState>{model.decode(y, state.memory).first, {rnn, state.memory}};
  };
  const nn::Prompts begin(static_cast<std::size_t>(batch.from.x.size(1)), {string_end});
  std::vector<std::string> texts;
  for (const auto& found : nn::beam_search(next, model.encode(batch.from), begin,
                                           {.beams = beams, .max_length = 20, .end = string_end})) {
    std::vector<std::int32_t> tokens = found.front().tokens;
    if (tokens.back() == string_end) tokens.pop_back();
    texts.emplace_back(tokens.begin(), tokens.end());
  }
  return texts;
}

// Which places of an example each symbol of its translation attended to.
template <class Attention>
void draw_map(const Model<Attention>& model, const StringPair& example, const std::string& path) {
  const Tensor weights = squeeze(model(make_batch({&example, 1})).second, 1);
  nn::write_file(path, html::picture(map_of(example, weights)));
}

template <class Attention>
void run(const Settings& s, const std::string& settings, const Params& params,
         const Attention& attention) {
  const Model<Attention> model(params, s, attention);
  Rng rng(static_cast<std::uint64_t>(s.seed), 1), test_rng(12345);
  const StringTask task(s.task, test_rng);
  const StringBatch test = make_batch(task.unseen());
  optim::Adam adam(params, {.learning_rate = s.learning_rate});
  const optim::CosineDecay schedule{.learning_rate = s.learning_rate, .length = s.epochs};
  Training training(
      params, adam, rng,
      {.epochs = s.epochs, .better = optim::Better::larger, .save = s.save, .settings = settings});
  while (training.next()) {
    adam.set_learning_rate(schedule.at(training.epoch()));
    for (Index step = 0; step < s.steps; ++step) {
      const StringBatch batch = make_batch(task.draw(s.batch, rng));
      Tape tape;
      const DecoderState state = model.encode(batch.from);
      const Tensor y = model.decoder(model.embed(batch.inputs.x), state.rnn).y;
      const Tensor loss =
          cross_entropy(model.decode(y, state.memory).first, batch.outputs.x,
                        datasets::length_mask(batch.outputs.lengths, batch.outputs.x.size(0)));
      Gradients gradients = tape.gradient(loss, params);
      optim::clip_by_norm(gradients, 1);
      adam.step(gradients);
      training.step(step, s.steps, loss.item());
    }
    const double right = task.share_right(translated(model, test, 1));
    training.end_epoch(right, fmt::format("exact {:.1f} %", 100 * right));
  }
  if (!s.map.empty()) draw_map(model, task.unseen().front(), s.map);
  print_result(
      fmt::format("% exactly right of {} that were not seen, with {} beams", s.task, s.beams),
      100 * task.share_right(translated(model, test, s.beams)),
      "generated text, so nothing was published");
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("seq2seq", "Learns to reverse strings, or to write dates as ISO 8601 does.");
  program.option("--task", s.task, "what to learn", {"dates", "reverse"});
  program.option("--attention", s.attention, "how places are scored", {"additive", "dot"});
  program.option("--hidden", s.hidden, "units").fast(64);
  program.option("--batch", s.batch, "strings of a step");
  program.option("--steps", s.steps, "steps of an epoch");
  program.option("--beams", s.beams, "sequences that the search keeps");
  program.option("--map", s.map, "SVG to draw of what was attended to in one example");
  add_training_options(program, s, {.epochs = 6, .learning_rate = 1e-2});
  return program.run(argc, argv, [&] {
    const Params params(static_cast<std::uint64_t>(s.seed));
    if (s.attention == "dot") return run(s, program.settings(), params, nn::DotAttention());
    run(s, program.settings(), params,
        nn::AdditiveAttention(params / "attention", s.hidden, s.hidden, s.hidden));
  });
}
