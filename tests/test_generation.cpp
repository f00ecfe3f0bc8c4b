// Whole sequences: nn::generate and nn::beam_search, over steppers and over steps of a program's
// own.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <set>

#include <reel/reel.h>

#include "temporary_directory.h"

using namespace reel;
using doctest::Contains;

namespace {

using Tokens = std::vector<std::int32_t>;

struct Model {
  explicit Model(Index symbols = 9, DType dtype = f64)
      : params(3, dtype),
        embed(params / "embed", symbols, 4),
        rnn(params / "rnn", 4, 6),
        head(params / "head", 6, symbols) {}

  Tensor logits(const Tokens& tokens) const {  // [T, V]
    const Tensor x = tensor({std::ssize(tokens), 1}, tokens);
    return 3 * squeeze(head(rnn(embed(x)).y), 1);
  }
  auto step() const {
    return [inner = nn::TokenStepper(embed, rnn, head)](const Tensor& tokens,
                                                        const nn::LstmState& state) {
      auto [y, next] = inner(tokens, state);
      return std::pair(3 * y, next);  // sharper
    };
  }
  // Σ ln p of the tokens after the prompt, from the layers over the whole sequence.
  double log_probability(const Tokens& prompt, const Tokens& tokens) const {
    Tokens all = prompt;
    all.insert(all.end(), tokens.begin(), tokens.end());
    const Tensor p = log_softmax(logits(all));
    double sum = 0;
    for (std::size_t i = prompt.size(); i < all.size(); ++i)
      sum += p.at({static_cast<Index>(i) - 1, all[i]});
    return sum;
  }

  Params params;
  nn::Embedding embed;
  nn::Lstm rnn;
  nn::Linear head;
};

const nn::Prompts prompts{{1}, {2, 5, 3, 3, 0}, {4, 4}};

// Logits that depend on the last token alone.
struct Table {
  struct State {
    Tensor last;
    template <class F>
    State map(F&& f) const {
      return {f(last)};
    }
  };
  auto operator()(const Tensor& tokens, const State&) const {
    return std::pair(gather_rows(rows, tokens), State{tokens});
  }
  Tensor rows;  // [V, V]
};

double score(double log_probability, std::size_t length, double a) {
  return log_probability / std::pow((5 + static_cast<double>(length)) / 6, a);
}

// Every continuation, by falling score.
std::vector<nn::Hypothesis> all_continuations(const Model& m, const Tokens& prompt,
                                              const nn::BeamOptions& options) {
  const auto symbols = static_cast<std::int32_t>(m.embed.w.shape()[0]);
  std::vector<nn::Hypothesis> found;
  std::vector<Tokens> open{{}};
  while (!open.empty()) {
    const Tokens tokens = open.back();
    open.pop_back();
    const bool ended = !tokens.empty() && tokens.back() == options.end;
    if (ended || std::ssize(tokens) == options.max_length) {
      const double p = m.log_probability(prompt, tokens);
      found.push_back({tokens, p, score(p, tokens.size(), options.length_penalty)});
      continue;
    }
    for (std::int32_t s = 0; s < symbols; ++s) {
      open.push_back(tokens);
      open.back().push_back(s);
    }
  }
  std::ranges::sort(found, std::greater<>{}, &nn::Hypothesis::score);
  return found;
}

}  // namespace

TEST_CASE("greedy generation takes the largest logit of the whole sequence at each position") {
  const Model m;
  const auto found = nn::generate(m.step(), nn::LstmState{}, prompts,
                                  {.max_length = 7, .sampling = {.temperature = 0}}, Rng(1));
  REQUIRE(found.size() == prompts.size());
  for (std::size_t b = 0; b < prompts.size(); ++b) {
    CAPTURE(b);
    Tokens all = prompts[b];
    for (int i = 0; i < 7; ++i)
      all.push_back(static_cast<std::int32_t>(argmax(m.logits(all)).to_vector().back()));
    CHECK(found[b].tokens == Tokens(all.end() - 7, all.end()));
    CHECK(found[b].log_probability ==
          doctest::Approx(m.log_probability(prompts[b], found[b].tokens)));
  }
}

TEST_CASE("a row gets the tokens that it gets alone, whatever the others' prompts") {
  const Model m(9, f32);
  const nn::TokenStepper step(m.embed, m.rnn, m.head);
  const nn::GenerateOptions options{
      .max_length = 12,
      .end = 2,
      .sampling = {.repetition_penalty = 1.3, .temperature = 1.5, .top_k = 7, .min_p = 0.01}};
  const Rng rng(5);
  const auto found = nn::generate(step, prompts, options, rng);
  std::set<std::size_t> lengths;
  for (const auto& row : found) lengths.insert(row.tokens.size());
  CHECK(lengths.size() > 1);  // some rows go on when others have ended
  for (Index extra = 0; extra < 3; ++extra) {
    // In row 0, so with the generator of row 0.
    nn::Prompts rows(prompts.begin(), prompts.begin() + 1);
    for (Index i = 0; i < extra; ++i)
      rows.push_back(Tokens(static_cast<std::size_t>(3 * i + 1), 8));
    const auto again = nn::generate(step, rows, options, rng);
    CHECK(again[0].tokens == found[0].tokens);
    CHECK(again[0].log_probability == found[0].log_probability);
  }
}

TEST_CASE("a row ends with its end token, and is fed that while others go on") {
  // 0 -> 1 -> 2 -> 3, which is the end, and 4 -> 4.
  const Table table{tensor({5, 5}, {0, 9, 0, 0, 0,  //
                                    0, 0, 9, 0, 0,  //
                                    0, 0, 0, 9, 0,  //
                                    9, 0, 0, 0, 0,  //
                                    0, 0, 0, 0, 9})};
  std::vector<std::vector<double>> fed;
  const auto step = [&](const Tensor& tokens, const Table::State& state) {
    fed.push_back(tokens.to_vector());
    return table(tokens, state);
  };
  std::vector<std::vector<std::pair<Index, std::int32_t>>> streamed;
  nn::GenerateOptions options{.max_length = 4,
                              .end = 3,
                              .sampling = {.temperature = 0},
                              .on_tokens = [&](std::span<const nn::NewToken> tokens) {
                                streamed.emplace_back();
                                for (const auto& t : tokens)
                                  streamed.back().emplace_back(t.row, t.token);
                                return true;
                              }};
  const nn::Prompts rows{{0, 1, 2}, {4}, {2}};
  auto found = nn::generate(step, Table::State{}, rows, options, Rng(1));
  CHECK(found[0].tokens == Tokens{3});
  CHECK(found[1].tokens == Tokens{4, 4, 4, 4});
  CHECK(found[2].tokens == Tokens{3});
  CHECK(fed == std::vector<std::vector<double>>{{0, 4, 2}, {1, 4, 3}, {2, 4, 3}, {3, 4, 3}});
  using Chosen = std::vector<std::pair<Index, std::int32_t>>;
  CHECK(streamed == std::vector<Chosen>{{{1, 4}, {2, 3}}, {{1, 4}}, {{0, 3}, {1, 4}}, {{1, 4}}});
  CHECK(found[0].log_probability == doctest::Approx(9 - std::log(4 + std::exp(9))));

  options.on_tokens = [&](std::span<const nn::NewToken>) { return fed.size() < 6; };
  found = nn::generate(step, Table::State{}, rows, options, Rng(1));
  CHECK(found[1].tokens == Tokens{4, 4});
  CHECK(found[0].tokens.empty());  // stopped within its prompt
  CHECK(found[0].log_probability == 0);
}

TEST_CASE("the logits of a row that has ended are not looked at") {
  const Table table{tensor({3, 3}, {-INFINITY, 0, -INFINITY, NAN, NAN, NAN, 0, -9, -9})};
  const auto found =
      nn::generate(table, Table::State{}, {{0}, {2}},
                   {.max_length = 2, .end = 1, .sampling = {.temperature = 0}}, Rng(1));
  CHECK(found[0].tokens == Tokens{1});
  CHECK(found[1].tokens == Tokens{0, 1});
}

TEST_CASE("generation samples from the model's distribution, and records nothing") {
  const Model m;
  const auto step = m.step();
  constexpr std::size_t rows = 4000;
  Tape tape;
  const auto found =
      nn::generate(step, nn::LstmState{}, nn::Prompts(rows, Tokens{1}), {.max_length = 2}, Rng(8));
  CHECK(tape.size() == 0);
  std::map<Tokens, double> counts;
  for (const auto& row : found) ++counts[row.tokens];
  const NoRecord pause;
  for (const auto& [tokens, count] : counts) {
    const double p = std::exp(m.log_probability({1}, tokens));
    CHECK(std::abs(count - rows * p) < 5 * std::sqrt(rows * p * (1 - p)) + 1);
  }
}

TEST_CASE("a prompt can be read by the layer, and generation go on from its state") {
  const Model m;
  const Tokens prompt{2, 5, 3, 3};
  const nn::GenerateOptions options{.max_length = 9};
  const auto whole = nn::generate(m.step(), nn::LstmState{}, {prompt}, options, Rng(2));
  const Tensor x = tensor({3, 1}, Tokens{2, 5, 3});
  const auto rest = nn::generate(m.step(), m.rnn(m.embed(x)).state, {{3}}, options, Rng(2));
  CHECK(whole[0].tokens == rest[0].tokens);
}

namespace {

// A decoder that attends to the encoder's outputs: these belong to the state, rows first.
struct DecoderState {
  nn::HiddenState decoder;
  Tensor memory;  // [B, S, H]
  template <class F>
  DecoderState map(F&& f) const {
    return {decoder.map(f), f(memory)};
  }
};

struct Translator {
  explicit Translator(DType dtype)
      : params(4, dtype),
        embed(params / "embed", 7, 5),
        encoder(params / "encoder", 5, 6),
        decoder(params / "decoder", 11, 6),
        head(params / "head", 12, 7) {}

  DecoderState encode(const Tensor& source) const {  // i32 [S, B]
    const auto [y, state] = encoder(embed(source));
    return {state, 8 * permute(y, {1, 0, 2})};
  }
  // Of one step: tokens i32 [B].
  std::pair<Tensor, DecoderState> operator()(const Tensor& tokens,
                                             const DecoderState& state) const {
    const Tensor query = expand(state.decoder.h, 2);                                // [B, H, 1]
    const Tensor weights = softmax(matmul(state.memory, query), 1);                 // [B, S, 1]
    const Tensor context = squeeze(matmul(state.memory, weights, true, false), 2);  // [B, H]
    const auto [y, next] = decoder(concat({embed(tokens), context}, -1), state.decoder);
    return {5 * head(concat({y, context}, -1)), {next, state.memory}};
  }

  Params params;
  nn::Embedding embed;
  nn::Gru encoder;
  nn::GruCell decoder;
  nn::Linear head;
};

}  // namespace

TEST_CASE("a decoder with attention is a step like any other, and each beam keeps its memory") {
  const Translator model(f64);
  const Tokens sources{1, 4, 2, 3, 6, 5, 5, 1, 6, 2, 3, 4};  // [S = 4, B = 3]
  const Tensor source = tensor({4, 3}, sources);
  const nn::Prompts starts(3, Tokens{0});
  const nn::BeamOptions options{.beams = 4, .best = 3, .max_length = 5, .end = 6};
  const auto found = nn::beam_search(model, model.encode(source), starts, options);
  const auto greedy =
      nn::generate(model, model.encode(source), starts,
                   {.max_length = 5, .end = 6, .sampling = {.temperature = 0}}, Rng(1));
  std::set<Tokens> different;
  for (Index b = 0; b < 3; ++b) {
    CAPTURE(b);
    const auto i = static_cast<std::size_t>(b);
    const Tensor own = slice(source, 1, b, b + 1);
    const auto alone = nn::beam_search(model, model.encode(own), {{0}}, options);
    REQUIRE(found[i].size() == 3);
    for (std::size_t k = 0; k < 3; ++k) {
      CHECK(found[i][k].tokens == alone[0][k].tokens);
      CHECK(found[i][k].score == doctest::Approx(alone[0][k].score));
    }
    CHECK(found[i][0].score >= greedy[i].log_probability - 1e-12);
    different.insert(found[i][0].tokens);
  }
  CHECK(different.size() > 1);
}

TEST_CASE("beam search with room for every sequence equals brute force") {
  const Model m(4);
  const auto step = m.step();
  for (const double a : {0.0, 0.6, 1.0, 3.0})
    for (const auto end : {std::optional<std::int32_t>(2), std::optional<std::int32_t>()})
      for (const Index best : {1, 7, 256}) {
        CAPTURE(a);
        CAPTURE(best);
        const nn::BeamOptions options{
            .beams = 256, .best = best, .max_length = 4, .end = end, .length_penalty = a};
        const nn::Prompts rows{{1}, {3, 0, 0}, {2, 1}};
        const auto found = nn::beam_search(step, nn::LstmState{}, rows, options);
        for (std::size_t b = 0; b < rows.size(); ++b) {
          const auto expected = all_continuations(m, rows[b], options);
          REQUIRE(found[b].size() == std::min(expected.size(), static_cast<std::size_t>(best)));
          for (std::size_t k = 0; k < found[b].size(); ++k) {
            CHECK(found[b][k].tokens == expected[k].tokens);
            CHECK(found[b][k].log_probability == doctest::Approx(expected[k].log_probability));
            CHECK(found[b][k].score == doctest::Approx(expected[k].score));
          }
        }
      }
}

TEST_CASE("one beam is greedy, more find no worse, and each row is searched by itself") {
  const Model m(12);
  const auto step = m.step();
  const auto greedy = nn::generate(step, nn::LstmState{}, prompts,
                                   {.max_length = 8, .sampling = {.temperature = 0}}, Rng(1));
  for (const Index beams : {1, 2, 5, 20}) {
    CAPTURE(beams);
    const nn::BeamOptions options{.beams = beams, .best = beams, .max_length = 8};
    const auto found = nn::beam_search(step, nn::LstmState{}, prompts, options);
    for (std::size_t b = 0; b < prompts.size(); ++b) {
      CHECK(found[b].size() == static_cast<std::size_t>(beams));
      if (beams == 1) CHECK(found[b][0].tokens == greedy[b].tokens);
      if (beams == 20) CHECK(found[b][0].log_probability >= greedy[b].log_probability - 1e-12);
      const auto alone = nn::beam_search(step, nn::LstmState{}, {prompts[b]}, options);
      for (std::size_t k = 0; k < found[b].size(); ++k) {
        CHECK(found[b][k].tokens == alone[0][k].tokens);
        CHECK(found[b][k].log_probability == alone[0][k].log_probability);
        CHECK(found[b][k].log_probability ==
              doctest::Approx(m.log_probability(prompts[b], found[b][k].tokens)));
      }
    }
  }
}

TEST_CASE("beam search: ties by index, forbidden symbols, and longer sequences by the penalty") {
  const Table even{zeros({3, 3})};
  const auto tied =
      nn::beam_search(even, Table::State{}, {{1}}, {.beams = 4, .best = 4, .max_length = 2});
  REQUIRE(tied[0].size() == 4);
  CHECK(tied[0][0].tokens == Tokens{0, 0});
  CHECK(tied[0][1].tokens == Tokens{0, 1});
  CHECK(tied[0][2].tokens == Tokens{0, 2});
  CHECK(tied[0][3].tokens == Tokens{1, 0});

  // From 0 only 1 and 2, from 1 nothing: what leads there has no continuation.
  const double no = -INFINITY;
  const Table narrow{tensor({3, 3}, {no, 2, 1, no, no, no, 0, no, no}, f64)};
  const auto left =
      nn::beam_search(narrow, Table::State{}, {{0}}, {.beams = 3, .best = 3, .max_length = 3});
  REQUIRE(left[0].size() == 2);
  CHECK(left[0][0].tokens == Tokens{2, 0, 1});
  CHECK(left[0][1].tokens == Tokens{2, 0, 2});
  CHECK(left[0][0].log_probability == doctest::Approx(-1 - 2 * std::log1p(std::exp(-1.0))));
  CHECK_THROWS_WITH_AS(
      nn::beam_search(narrow, Table::State{}, {{0}, {1}}, {}),
      Contains("beam_search: row 1 has no continuation: all its logits are -inf, which forbids a "
               "symbol (" __FILE__ ":"),
      ValueError);

  // 1 ends with p = 1/2; going on to 2 and back loses a half and then nothing more.
  const Table longer{tensor({3, 3}, {no, 0, 0, no, 0, no, no, 0, no}, f64)};
  const auto best = [&](double a) {
    return nn::beam_search(longer, Table::State{}, {{0}},
                           {.beams = 2, .max_length = 4, .end = 1, .length_penalty = a})[0][0];
  };
  CHECK(best(0).tokens == Tokens{1});
  CHECK(best(1).tokens == Tokens{2, 1});
  CHECK(best(1).score == doctest::Approx(std::log(0.5) * 6 / 7));

  // A result with p = 0.6 does not end the search for one of 30 tokens with p = 0.4.
  const Table patient{
      tensor({3, 3}, {no, std::log(0.6), std::log(0.4), no, 0, no, no, no, 0}, f64)};
  const auto late =
      nn::beam_search(patient, Table::State{}, {{0}},
                      {.beams = 2, .max_length = 30, .end = 1, .length_penalty = 1})[0][0];
  CHECK(late.tokens == Tokens(30, 2));
  CHECK(late.score == doctest::Approx(std::log(0.4) * 6 / 35));
}

TEST_CASE("generation and beam search name what is wrong with their options and logits") {
  const Table table{zeros({3, 3})};
  const auto says = [&](const nn::Prompts& rows, const nn::GenerateOptions& options) {
    return message_of<ValueError>(
        [&] { nn::generate(table, Table::State{}, rows, options, Rng(1)); });
  };
  CHECK(contains(says({}, {}), "generate: there are no prompts; give one for each row ("));
  CHECK(contains(says({{1}, {}}, {}), "generate: prompt 1 is empty; it needs a token to begin"));
  CHECK(contains(says({{1}}, {.max_length = 0}), "generate: max_length must be positive, not 0"));
  CHECK(contains(says({{1}}, {.end = -1}), "generate: the end token is -1, which no token can be"));
  CHECK(contains(says({{1}}, {.end = 3}), "the end token 3 is not among the 3 tokens (0 to 2)"));
  CHECK(contains(says({{1}}, {.sampling = {.min_p = 2}}), "min_p is 2, not in [0, 1]"));
  CHECK(contains(says({{1}, {7}}, {}), "row 7 at position 1"));
  const auto beams_say = [&](const nn::BeamOptions& options) {
    return message_of<ValueError>([&] { nn::beam_search(table, Table::State{}, {{1}}, options); });
  };
  CHECK(contains(beams_say({.beams = 0}), "beam_search: beams must be positive, not 0 (" __FILE__));
  CHECK(contains(beams_say({.beams = 2, .best = 3}),
                 "beam_search: best is 3, not from 1 to the number of beams, 2"));
  CHECK(contains(beams_say({.length_penalty = -1}), "length_penalty is -1, not a finite number"));
  CHECK(contains(beams_say({.length_penalty = NAN}), "length_penalty is nan"));
  CHECK(
      contains(beams_say({.max_length = -1}), "beam_search: max_length must be positive, not -1"));
  CHECK(contains(beams_say({.end = 5}), "beam_search: the end token 5 is not among the 3 tokens"));

  const Table broken{tensor({2, 2}, {0, 0, 0, NAN})};
  CHECK_THROWS_WITH_AS(nn::generate(broken, Table::State{}, {{0}, {1}}, {}, Rng(1)),
                       Contains("generate: logit 1 of row 1 is nan; the model has diverged"),
                       ValueError);
  CHECK_THROWS_WITH_AS(nn::beam_search(broken, Table::State{}, {{1}}, {}),
                       Contains("beam_search: logit 1 is nan"), ValueError);
  const auto flat = [](const Tensor&, const Table::State& state) {
    return std::pair(zeros({3}), state);
  };
  CHECK_THROWS_WITH_AS(nn::generate(flat, Table::State{}, {{0}}, {}, Rng(1)),
                       Contains("generate: logits have shape [3], not [1, V], a row for each"),
                       ShapeError);
  CHECK_THROWS_AS(nn::beam_search(flat, Table::State{}, {{0}}, {}), ShapeError);
  const auto whole = [](const Tensor& tokens, const Table::State& state) {
    return std::pair(zeros({tokens.size(), 3}, i32), state);
  };
  CHECK_THROWS_AS(nn::generate(whole, Table::State{}, {{0}}, {}, Rng(1)), DTypeError);
}

TEST_CASE("a token stepper is of its parameters as they were") {
  Model m;
  const nn::TokenStepper step(m.embed, m.rnn, m.head);
  const auto [logits, state] = step(tensor({2}, Tokens{3, 1}));
  CHECK(logits.shape() == Shape{2, 9});
  m.head.b.edit<double>()[0] += 1;
  CHECK_THROWS_WITH_AS(nn::generate(step, {{1}}, {}, Rng(1)), Contains("head.b has changed"),
                       StaleTensorError);
}
