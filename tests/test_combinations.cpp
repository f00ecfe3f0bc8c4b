// Every cell with its options, what it drops, in every container, padded and packed: gradients, and
// runs that are resumed, on any number of threads.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/params.h>
#include <reel/autograd/rng.h>
#include <reel/autograd/tape.h>
#include <reel/nn/bidirectional.h>
#include <reel/nn/cells/full_gate_lstm.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/ind_rnn.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/mgu.h>
#include <reel/nn/cells/min_gru.h>
#include <reel/nn/cells/min_lstm.h>
#include <reel/nn/cells/qrnn.h>
#include <reel/nn/cells/rg_lru.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/cells/slstm.h>
#include <reel/nn/cells/sru.h>
#include <reel/nn/named_tensors.h>
#include <reel/nn/stacked.h>
#include <reel/nn/with_initial_state.h>
#include <reel/optim/adam.h>
#include <reel/optim/run_state.h>

#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using testing::same_bits;

namespace {

constexpr Index features = 2, units = 3;

// A layer of any type: y and the tensors of its last state, in one list.
using Model = std::function<Tensors(const Tensor& x, const nn::Mode&, const SequenceOptions&)>;

struct Combination {
  std::string name;
  std::function<Model(const Params&)> make;
  int order;  // of the derivatives to be checked
};

class Table {
 public:
  // The layer with these options in every container.
  template <class L, class Options>
  void add(const std::string& name, const Options& options) {
    using nn::Bidirectional, nn::Stacked, nn::WithInitialState;
    add_made(name, 2, [=](const Params& p) { return L(p, features, units, options); });
    add_made(name + ", stacked with residual connections and dropout", 1, [=](const Params& p) {
      return Stacked<L>(p, features, units,
                        {.layers = 2, .dropout = 0.3, .connection = nn::Connection::residual},
                        options);
    });
    add_made(name + ", bidirectional", 1,
             [=](const Params& p) { return Bidirectional<L>(p, features, units, options); });
    add_made(name + ", a bidirectional stack with layer norm", 1, [=](const Params& p) {
      return Stacked<Bidirectional<L>>(p, features, units, {.layers = 2, .layer_norm = true},
                                       options);
    });
    add_made(name + ", stacks in both directions, summed", 1, [=](const Params& p) {
      return Bidirectional<Stacked<L>>(p, features, units,
                                       nn::BidirectionalOptions{.merge = nn::Merge::sum},
                                       nn::StackOptions{.layers = 2}, options);
    });
    add_made(name + ", from a trained state", 1,
             [=](const Params& p) { return WithInitialState<L>(p, features, units, options); });
  }

  std::vector<Combination> all;

 private:
  template <class Make>
  void add_made(const std::string& name, int order, Make make) {
    all.push_back({name,
                   [=](const Params& p) -> Model {
                     return [layer = make(p)](const Tensor& x, const nn::Mode& mode,
                                              const SequenceOptions& options) {
                       const auto [y, state] = layer(x, {}, mode, options);
                       Tensors results{y};
                       for (const Tensor& s : nn::flatten(state)) results.push_back(s);
                       return results;
                     };
                   },
                   order});
  }
};

// What a cell may drop, each by itself and all at once.
template <class L>
void add_dropped(Table& table, const std::string& name, typename L::Options options, bool update,
                 bool cell_state) {
  const auto add = [&](const char* what, const nn::CellDropout& dropout) {
    options.dropout = dropout;
    table.add<L>(name + " with " + what, options);
  };
  add("variational dropout", {.input = 0.3, .hidden = 0.4});
  add("weight drop", {.weights = 0.5});
  if (update) add("dropout of updates", {.update = 0.3});
  add("zoneout", {.zoneout_h = 0.2, .zoneout_c = cell_state ? 0.4 : 0});
  add("all of it", {.input = 0.1,
                    .hidden = 0.2,
                    .update = update ? 0.3 : 0,
                    .weights = 0.2,
                    .zoneout_h = 0.1,
                    .zoneout_c = cell_state ? 0.2 : 0});
}

void add_lstms(Table& table) {
  for (int variant = 0; variant <= static_cast<int>(LstmVariant::no_output_activation); ++variant)
    for (const bool peepholes : {false, true})
      table.add<nn::Lstm>(
          "lstm, variant " + std::to_string(variant) + (peepholes ? " with peepholes" : ""),
          nn::LstmOptions{.variant = static_cast<LstmVariant>(variant), .peepholes = peepholes});
  table.add<nn::Lstm>("lstm with a projection", nn::LstmOptions{.projection_size = 2});
  table.add<nn::Lstm>("lstm with a clipped state", nn::LstmOptions{.cell_clip = 0.3});
  table.add<nn::Lstm>("lstm with layer norm", nn::LstmOptions{.layer_norm = true});
  table.add<nn::Lstm>("lstm with layer norm and all else",
                      nn::LstmOptions{.projection_size = 2,
                                      .cell_clip = 0.5,
                                      .layer_norm = true,
                                      .dropout = {.input = 0.1,
                                                  .hidden = 0.2,
                                                  .update = 0.3,
                                                  .weights = 0.2,
                                                  .zoneout_h = 0.1,
                                                  .zoneout_c = 0.2}});
  add_dropped<nn::Lstm>(table, "lstm", {}, true, true);
}

std::vector<Combination> combinations() {
  Table table;
  table.add<nn::Rnn>("rnn", nn::RnnOptions{});
  table.add<nn::Rnn>("rnn from the identity",
                     nn::RnnOptions{.activation = Activation::relu, .identity_start = true});
  table.add<nn::Rnn>("rnn with layer norm", nn::RnnOptions{.layer_norm = true});
  add_dropped<nn::Rnn>(table, "rnn", {}, false, false);
  table.add<nn::Gru>("gru", nn::GruOptions{});
  table.add<nn::Gru>("gru, reset before", nn::GruOptions{.reset = Reset::before});
  table.add<nn::Gru>("gru with layer norm", nn::GruOptions{.layer_norm = true});
  add_dropped<nn::Gru>(table, "gru", {}, true, false);
  add_lstms(table);
  table.add<nn::Mgu>("mgu", nn::MguOptions{});
  add_dropped<nn::Mgu>(table, "mgu", {}, true, false);
  table.add<nn::IndRnn>("ind_rnn", nn::IndRnnOptions{});
  table.add<nn::IndRnn>("ind_rnn, tanh, zoneout",
                        nn::IndRnnOptions{.activation = Activation::tanh,
                                          .dropout = {.input = 0.2, .zoneout_h = 0.3}});
  for (const ForgetGate forget : {ForgetGate::sigmoid, ForgetGate::exponential})
    table.add<nn::Slstm>(
        "slstm " + std::to_string(static_cast<int>(forget)),
        nn::SlstmOptions{.forget = forget,
                         .dropout = {.hidden = forget == ForgetGate::sigmoid ? 0.2 : 0.0}});
  table.add<nn::FullGateLstm>("full_gate_lstm", nn::FullGateLstmOptions{});
  table.add<nn::FullGateLstm>(
      "full_gate_lstm, dropped",
      nn::FullGateLstmOptions{
          .dropout = {.hidden = 0.2, .update = 0.2, .weights = 0.1, .zoneout_h = 0.3}});
  table.add<nn::MinGru>("min_gru", nn::MinGruOptions{});
  table.add<nn::MinLstm>("min_lstm", nn::MinLstmOptions{});
  table.add<nn::Sru>("sru", nn::SruOptions{});
  table.add<nn::Qrnn>("qrnn", nn::QrnnOptions{});
  table.add<nn::RgLru>("rg_lru", nn::RgLruOptions{});
  return table.all;
}

// Of a combination, padded or packed: under sanitizers, which are slow, every few.
template <class F>
void each_combination(F f) {
  const std::vector<Combination> all = combinations();
  const std::size_t stride = testing::sanitized ? 29 : 1;
  for (std::size_t i = 0; i < 2 * all.size(); i += stride) {
    const Combination& combination = all[i / 2];
    const bool packed = i % 2 == 1;
    CAPTURE(combination.name);
    CAPTURE(packed);
    f(combination, packed);
  }
}

SequenceOptions options_of(bool packed, const std::vector<std::int32_t>& lengths) {
  SequenceOptions options;
  if (packed) options.lengths = tensor({std::ssize(lengths)}, lengths);
  return options;
}

Tensor loss_of(const Tensors& results) {
  Tensor loss = scalar(0, results[0].dtype());
  for (const Tensor& result : results) loss = loss + sum(square(result)) + sum(result);
  return loss;
}

// A training run of four steps; the state is saved and loaded into another model before step
// `resumed`, if that is not negative.
Tensors trained(const Combination& combination, bool packed, int threads, int resumed,
                const std::filesystem::path& file) {
  const testing::ThreadsScope scope(threads);
  const SequenceOptions options = options_of(packed, {2, 4, 1, 4, 3, 0, 4, 2, 1});
  const Tensor x = Rng(7).normal({4, 9, features});
  Params params(3);
  Model model = combination.make(params);
  optim::Adam adam(params, {.learning_rate = 0.01});
  Rng rng(5);
  for (int step = 0; step < 4; ++step) {
    if (step == resumed) {
      optim::save_run_state(
          file, {.params = nn::from_params(params), .optimizer = adam.state(), .rng = rng.state()});
      const optim::RunState loaded = optim::load_run_state(file);
      params = Params(99);
      model = combination.make(params);
      nn::load_params(loaded.params, params);
      adam = optim::Adam(params, {.learning_rate = 0.01});
      adam.restore(loaded.optimizer);
      rng = Rng(loaded.rng);
    }
    Tape tape;
    adam.step(tape.gradient(loss_of(model(x, nn::Train{rng}, options)), params));
  }
  Tensors weights;
  for (const Param& p : params.list()) weights.push_back(p.value());
  return weights;
}

}  // namespace

TEST_CASE("combinations: gradients of every cell, option, dropout and container") {
  int count = 0;
  each_combination([&](const Combination& combination, bool packed) {
    const Params params(1, f64);
    const Model model = combination.make(params);
    for (Param p : params.list())  // kinks: of relu without input, and an n of 0 begins a sequence
      if (std::ranges::all_of(p.value().to_vector(), [](double v) { return v == 0; }))
        p.set(Rng(6).uniform(p.shape(), 0.5, 1, f64));
    const SequenceOptions options = options_of(packed, {2, 3});
    const Tensor x = Rng(2).normal({3, 2, features}, 0, 1, f64);
    Rng rng(4);
    const auto loss = [&](std::span<const Tensor> in) {
      return loss_of(model(in[0], nn::Train{rng}, options));
    };
    const GradientReport report = check_gradients(
        loss, params, {{"x", x}},
        {.order = combination.order, .mode = GradcheckOptions::Mode::fast, .replay = {&rng}});
    CHECK_MESSAGE(report.ok, report.summary());
    ++count;
  });
  if (!testing::sanitized) CHECK(count >= 400);
}

TEST_CASE("combinations: a run goes on after a file as if nothing had been, on 1 to 8 threads") {
  const TemporaryDirectory directory;
  each_combination([&](const Combination& combination, bool packed) {
    const Tensors straight = trained(combination, packed, 1, -1, {});
    const auto check = [&](int threads, int resumed) {
      const Tensors weights =
          trained(combination, packed, threads, resumed, directory / "run.safetensors");
      bool same = weights.size() == straight.size();
      for (std::size_t i = 0; same && i < weights.size(); ++i)
        same = same_bits(weights[i], straight[i]);
      CAPTURE(threads);
      CHECK(same);
    };
    check(1, 2);
    check(2, 1);
    check(3, -1);
    check(8, 3);
  });
}
