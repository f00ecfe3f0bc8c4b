// Runs one layer or one optimizer on the numbers of a file, for the scripts of this folder:
//     driver REQUEST ANSWER
// Both are safetensors. The request says in its metadata, as JSON, what to run; reel_driver.py
// writes and reads them.
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/bidirectional.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/files/safetensors.h>
#include <reel/nn/linear.h>
#include <reel/nn/named_state.h>
#include <reel/nn/stacked.h>
#include <reel/nn/unroll.h>

#include <fmt/format.h>

#include <exception>

#include "optimizer_tasks.h"
#include "request.h"
#include "user_cells.h"

using namespace reel;

namespace third_party {
namespace {

template <class T>
void choose(Json& from, const char* name, T& value, const std::map<std::string, T>& by_name) {
  const std::string text = take<std::string>(from, name, "");
  if (!text.empty()) value = by_name.at(text);
}

template <class Options>
Options with_dropout(Json& given) {
  Options options;
  take_into(given, "input_dropout", options.dropout.input);
  take_into(given, "hidden_dropout", options.dropout.hidden);
  return options;
}

nn::RnnOptions options_of(Json& given, const nn::RnnOptions&) {
  auto options = with_dropout<nn::RnnOptions>(given);
  choose(given, "activation", options.activation,
         {{"tanh", Activation::tanh}, {"relu", Activation::relu}});
  return options;
}

nn::GruOptions options_of(Json& given, const nn::GruOptions&) {
  auto options = with_dropout<nn::GruOptions>(given);
  choose(given, "reset", options.reset, {{"after", Reset::after}, {"before", Reset::before}});
  return options;
}

nn::LstmOptions options_of(Json& given, const nn::LstmOptions&) {
  auto options = with_dropout<nn::LstmOptions>(given);
  take_into(given, "peepholes", options.peepholes);
  take_into(given, "projection_size", options.projection_size);
  return options;
}

// The numbers whose gradients are asked for, by name.
class Sources {
 public:
  explicit Sources(Tape& tape) : tape_(tape) {}

  Tensor watch(const std::string& name, const Tensor& x) {
    return x.defined() ? add(name, tape_.watch(x)) : x;
  }
  Tensor add(const std::string& name, Tensor x) {
    names_.push_back(name);
    tensors_.push_back(x);
    return x;
  }
  void gradients(const Tensor& loss, nn::NamedTensors& answer) {
    const std::vector<Tensor> found = tape_.gradient(loss, tensors_);
    for (std::size_t i = 0; i < found.size(); ++i) answer.tensors["grad." + names_[i]] = found[i];
  }

 private:
  Tape& tape_;
  std::vector<std::string> names_;
  std::vector<Tensor> tensors_;
};

// The outputs of a model, and the gradients of ⟨y, dy⟩ + Σ ⟨state, dstate⟩ where these are given.
template <class Model>
nn::NamedTensors run(const nn::NamedTensors& request, const Params& params, const Model& model,
                     const SequenceOptions& options, const nn::Mode& mode) {
  nn::load_params(request.part("param."), params);
  Tape tape;
  Sources sources(tape);
  const Tensor x = sources.watch("x", request["x"]);
  typename Model::State start;
  if (!request.part("state.").tensors.empty()) {
    start = nn::to_state<typename Model::State>(request);
    std::vector<Tensor> watched = nn::flatten(start);
    const std::vector<std::string> names = nn::names_of(start);
    for (std::size_t i = 0; i < names.size(); ++i)
      watched[i] = sources.watch("state." + names[i], watched[i]);
    start = nn::unflatten(start, watched);
  }
  for (const Param& p : params.list()) sources.add("param." + p.name(), p.tensor());

  const auto [y, last] = model(x, start, mode, options);
  nn::NamedTensors answer;  // on the tape, which from_state's values are not
  const std::vector<Tensor> states = nn::flatten(last);
  for (std::size_t i = 0; const std::string& name : nn::names_of(last)) {
    if (states[i].defined()) answer.tensors["state." + name] = states[i];
    ++i;
  }
  answer.tensors["y"] = y;
  Tensor loss;
  for (const auto& [name, upstream] : request.part("upstream.").tensors) {
    const Tensor part = sum(answer[name] * upstream);
    loss = loss.defined() ? loss + part : part;
  }
  if (loss.defined()) sources.gradients(loss, answer);
  return answer;
}

SequenceOptions sequence_options(Json& task, const nn::NamedTensors& request) {
  SequenceOptions options{.reverse = take(task, "reverse", false)};
  if (request.tensors.contains("lengths")) options.lengths = request["lengths"];
  return options;
}

template <class L>
nn::NamedTensors run_layer(Json& task, const nn::NamedTensors& request) {
  const auto inputs = take<Index>(task, "input_size", 0), units = take<Index>(task, "units", 0);
  const nn::StackOptions stack{.layers = take<int>(task, "layers", 1)};
  const bool both = take(task, "both", false);
  nn::BidirectionalOptions joined;
  choose(task, "merge", joined.merge,
         {{"concat", nn::Merge::concat}, {"sum", nn::Merge::sum}, {"mean", nn::Merge::mean}});
  const typename L::Options own = options_of(task, typename L::Options{});
  const SequenceOptions options = sequence_options(task, request);
  const int seed = take(task, "seed", -1);  // of dropout, in training
  require_empty(task);

  Rng rng(static_cast<std::uint64_t>(seed));
  const nn::Mode mode = seed >= 0 ? nn::Mode(nn::Train{rng}) : nn::Mode(nn::Eval{});
  const Params params(0, request["x"].dtype());
  if (both)
    return run(request, params,
               nn::Stacked<nn::Bidirectional<L>>(params, inputs, units, stack, joined, own),
               options, mode);
  return run(request, params, nn::Stacked<L>(params, inputs, units, stack, own), options, mode);
}

template <class Cell>
nn::NamedTensors run_unrolled(Json& task, const nn::NamedTensors& request) {
  const auto inputs = take<Index>(task, "input_size", 0), units = take<Index>(task, "units", 0);
  const SequenceOptions options = sequence_options(task, request);
  require_empty(task);
  const Params params(0, request["x"].dtype());
  const nn::Stacked<nn::Unroll<Cell>> model(params, inputs, units, nn::StackOptions{.layers = 1});
  return run(request, params, model, options, nn::Eval{});
}

// y = f(x wᵀ + b), as a layer without a state.
struct Dense {
  using State = nn::HiddenState;
  using Function = Tensor (*)(const Tensor&);

  nn::Output<State> operator()(const Tensor& x, const State&, const nn::Mode&,
                               const SequenceOptions&) const {
    return {f(linear(x)), {}};
  }

  nn::Linear linear;
  Function f = [](const Tensor& y) { return y; };
};

nn::NamedTensors run_linear(Json& task, const nn::NamedTensors& request) {
  const auto inputs = take<Index>(task, "input_size", 0), units = take<Index>(task, "units", 0);
  const Params params(0, request["x"].dtype());
  Dense dense{nn::Linear(params, inputs, units)};
  choose(task, "activation", dense.f,
         {{"tanh", [](const Tensor& y) { return tanh(y); }},
          {"sigmoid", [](const Tensor& y) { return sigmoid(y); }}});
  require_empty(task);
  return run(request, params, dense, {}, nn::Eval{});
}

nn::NamedTensors answer_to(const nn::NamedTensors& request) {
  Json task = Json::parse(request.metadata.at("task"));
  const auto kind = take<std::string>(task, "kind", "");
  if (kind == "rnn") return run_layer<nn::Rnn>(task, request);
  if (kind == "gru") return run_layer<nn::Gru>(task, request);
  if (kind == "lstm") return run_layer<nn::Lstm>(task, request);
  if (kind == "linear_cell") return run_unrolled<LinearCell>(task, request);
  if (kind == "two_states_cell") return run_unrolled<TwoStatesCell>(task, request);
  if (kind == "linear") return run_linear(task, request);
  if (kind == "optimizer") return run_optimizer(task, request);
  throw ValueError("the driver knows no kind " + kind);
}

}  // namespace
}  // namespace third_party

int main(int count, char** words) {
  if (count != 3) {
    fmt::print(stderr, "usage: driver REQUEST ANSWER\n");
    return 2;
  }
  try {
    nn::save_safetensors(words[2], third_party::answer_to(nn::load_safetensors(words[1])));
  } catch (const std::exception& error) {
    fmt::print(stderr, "driver: {}\n", error.what());
    return 1;
  }
  return 0;
}
