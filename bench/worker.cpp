// Reel's side of the benchmark, a worker of bench/compare.py: worker THREADS
#include <reel/autograd/kernels/matmul.h>
#include <reel/autograd/kernels/thread_pool.h>
#include <reel/nn/cells/unit_cell.h>
#include <reel/reel.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "peak.h"
#include "protocol.h"

namespace {

using namespace reel;
using protocol::Json;
using protocol::Prepared;
using protocol::size_in;

struct Sizes {
  explicit Sizes(const Json& row)
      : inputs(row.value("inputs", Index{0})),
        hidden(size_in(row, "hidden")),
        layers(row.value("layers", 0)),
        batch(size_in(row, "batch")),
        steps(size_in(row, "steps")) {}

  Index inputs, hidden;
  int layers;
  Index batch, steps;
};

// A call, and the bytes that its tape holds between forward and backward pass.
Prepared differentiated(std::function<void()> call, std::int64_t held_bytes) {
  return {std::move(call), [=] { return Json{{"activation_bytes", held_bytes}}; }};
}

template <class L>
Prepared forward(const Sizes& sizes) {
  const nn::Stacked<L> layers(Params(1), sizes.inputs, sizes.hidden, {.layers = sizes.layers});
  const Tensor x = Rng(2).normal({sizes.steps, sizes.batch, sizes.inputs});
  return {[=] { layers(x); }, {}};
}

// An LSTM with peepholes as a program would write it.
struct OwnLstm {
  static constexpr const char* name = "own_lstm";
  static constexpr kernels::CellLayout layout{.sums = 4, .states = 2, .weights = 3};

  static auto unit(const auto& sums, const auto& before, const auto& weights) {
    const auto& [i_sum, f_sum, g_sum, o_sum] = sums;
    const auto& [h, c] = before;
    const auto& [p_i, p_f, p_o] = weights;
    const auto i = sigmoid(i_sum + p_i * c);
    const auto f = sigmoid(f_sum + p_f * c);
    const auto c_next = f * c + i * tanh(g_sum);
    return std::tuple(sigmoid(o_sum + p_o * c_next) * tanh(c_next), c_next);
  }
};

// The input is a parameter too, so that its gradient is part of the work.
template <class L, class... Options>
Prepared training(const Sizes& sizes, const SequenceOptions& sequence = {},
                  const Options&... options) {
  const Params params(1);
  const nn::Stacked<L> layers(params, sizes.inputs, sizes.hidden, {.layers = sizes.layers},
                              options...);
  const Param x = params.create("x", {sizes.steps, sizes.batch, sizes.inputs}, nn::init::normal(1));
  const Tensor seed = Rng(3).normal({sizes.steps, sizes.batch, layers.output_size()});
  const auto rng = std::make_shared<Rng>(4);
  Tape tape;
  static_cast<void>(layers(x, nn::Train{*rng}, sequence));
  const auto call = [=] {
    Tape each;
    each.gradient(layers(x, nn::Train{*rng}, sequence).y, params, {.seed = seed});
  };
  return differentiated(call, tape.held_bytes());
}

// Training that nn::Diagnostics watches.
template <class L>
Prepared diagnosed(const Sizes& sizes) {
  Prepared plain = training<L>(sizes);
  const auto diagnostics = std::make_shared<nn::Diagnostics>();
  plain.call = [=, call = std::move(plain.call)] {
    const auto watch = diagnostics->watch();
    call();
  };
  return plain;
}

SequenceOptions lengths_of(const Json& row) {
  const auto lengths = row.at("lengths").get<std::vector<std::int32_t>>();
  return {.lengths = tensor({std::ssize(lengths)}, lengths)};
}

// Goes on where the last call ended, so that every update looks back over k2 steps.
template <class L>
Prepared tbptt(const Sizes& sizes, const optim::TbpttOptions& options) {
  const Params params(1);
  const nn::Stacked<L> layers(params, sizes.inputs, sizes.hidden, {.layers = sizes.layers});
  using State = typename nn::Stacked<L>::State;
  const auto window = std::make_shared<optim::Tbptt<State>>(params, options);
  const Tensor x = Rng(2).normal({sizes.steps, sizes.batch, sizes.inputs});
  const auto call = [=] {
    window->run(
        {x},
        [&](const Tensor& part, const State& state) {
          auto [y, next] = layers(part, state);
          return std::pair(mean(square(y)), std::move(next));
        },
        [](const Gradients&, double) {});
  };
  return {call, {}};
}

// A step of `char_lm train`, embedding to optimizer.
template <class L>
class CharLm {
 public:
  CharLm(const Sizes& sizes, Index symbols, const std::string& optimizer)
      : embed_(params_ / "embed", symbols, sizes.inputs),
        layers_(params_ / "rnn", sizes.inputs, sizes.hidden, {.layers = sizes.layers}),
        head_(params_ / "head", sizes.hidden, symbols),
        optimizer_(make(optimizer, params_)),
        tokens_(random_tokens(100 * sizes.batch * sizes.steps, symbols)),
        windows_(tokens_, sizes.batch, sizes.steps) {}

  /// The bytes that the tape held between forward and backward pass.
  std::int64_t step() {
    const auto [inputs, targets] = windows_[done_++ % windows_.count()];
    Tape tape;
    const auto [y, next] = layers_(embed_(inputs), state_);
    const Tensor loss = head_.w.shape()[0] < large_vocabulary ? cross_entropy(head_(y), targets)
                                                              : head_.cross_entropy(y, targets);
    const std::int64_t held = done_ == 1 ? tape.held_bytes() : 0;
    optimizer_->step(tape.gradient(loss, params_));
    state_ = detach(next);
    return held;
  }

 private:
  static constexpr Index large_vocabulary = 2000;

  // With the gradient clipped to a norm of 5, in the pass of the update.
  static std::unique_ptr<optim::Optimizer> make(const std::string& name, const Params& params) {
    const std::vector<optim::Group> all{{.params = "*", .max_norm = 5}};
    if (name == "sgd")
      return std::make_unique<optim::Sgd>(params,
                                          optim::SgdOptions{.learning_rate = 1, .groups = all});
    return std::make_unique<optim::Adam>(params,
                                         optim::AdamOptions{.learning_rate = 2e-3, .groups = all});
  }

  static std::vector<std::int32_t> random_tokens(Index count, Index symbols) {
    Rng rng(2);
    std::vector<std::int32_t> tokens;
    for (Index i = 0; i < count; ++i)
      tokens.push_back(static_cast<std::int32_t>(rng.integer(static_cast<std::uint64_t>(symbols))));
    return tokens;
  }

  Params params_{1};
  nn::Embedding embed_;
  nn::Stacked<L> layers_;
  nn::Linear head_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  std::vector<std::int32_t> tokens_;
  datasets::Windows windows_;
  typename nn::Stacked<L>::State state_;
  Index done_ = 0;
};

template <class L>
Prepared char_lm(const Json& row) {
  const auto model = std::make_shared<CharLm<L>>(Sizes(row), size_in(row, "symbols"),
                                                 row.value("optimizer", std::string("adam")));
  const std::int64_t held = model->step();
  return differentiated([=] { model->step(); }, held);
}

// As in text generation: weights packed once, the state carried along.
template <class L>
Prepared stepping(const Sizes& sizes) {
  const Params params(1);
  const nn::Stepper step(L(params, sizes.inputs, sizes.hidden));
  const Tensor x = Rng(2).normal({1, sizes.inputs});
  const auto call = [=] {
    typename L::State state;
    for (Index t = 0; t < sizes.steps; ++t) state = step(x, state).state;
  };
  return {call, {}};
}

// A signal in real time, one sample at a time.
template <class L>
Prepared streaming(const Sizes& sizes) {
  const auto stream = std::make_shared<nn::Stream<float>>(L(Params(1), sizes.inputs, sizes.hidden));
  const Tensor x = Rng(2).normal({sizes.steps, sizes.inputs});
  const auto y = std::make_shared<std::vector<float>>(static_cast<std::size_t>(sizes.hidden));
  const auto call = [=] {
    const std::span<const float> samples = x.values<float>();
    const auto size = static_cast<std::size_t>(sizes.inputs);
    for (std::size_t at = 0; at < samples.size(); at += size)
      stream->step(samples.subspan(at, size), *y);
  };
  return {call, {}};
}

Prepared matmul(Index m, Index k, Index n, bool packed) {
  using View = kernels::MatrixView<float>;
  using Packed = kernels::PackedMatrix<float>;
  const Tensor a = Rng(1).normal({m, k}), b = Rng(2).normal({k, n}), c = zeros({m, n});
  const View right = View::row_major(b.values<float>().data(), k, n);
  const auto packed_right = packed ? std::make_shared<Packed>(right) : nullptr;
  const auto call = [=] {
    const View left = View::row_major(a.values<float>().data(), a.size(0), a.size(1));
    const auto result = static_cast<float*>(c.buffer().data());
    if (packed_right)
      kernels::matmul(left, *packed_right, result, c.size(1), kernels::Write::assign);
    else
      kernels::matmul(left, View::row_major(b.values<float>().data(), b.size(0), b.size(1)), result,
                      c.size(1), kernels::Write::assign);
  };
  return {call, {}};
}

// Over memory: a, b and y of a scan, or as many bytes read and written.
Prepared scan(const Sizes& sizes) {
  const Shape sequence{sizes.steps, sizes.batch, sizes.hidden};
  const Tensor a = Rng(1).uniform(sequence, 0, 1), b = Rng(2).normal(sequence);
  return {[=] { linear_scan(a, b); }, {}};
}
Prepared copy(const Sizes& sizes) {
  constexpr Index block = 1 << 18;
  const Index bytes = sizes.steps * sizes.batch * sizes.hidden * Index{sizeof(float)} * 3 / 2;
  const Tensor from = ones({bytes / 4}), to = ones({bytes / 4});
  return {[=] {
            kernels::parallel_for((bytes + block - 1) / block, [&](Index i) {
              const auto at = static_cast<std::size_t>(i * block);
              std::memcpy(static_cast<char*>(to.buffer().data()) + at,
                          static_cast<const char*>(from.buffer().data()) + at,
                          static_cast<std::size_t>(std::min(block, bytes - i * block)));
            });
          },
          {}};
}

// The peak of fused multiply-adds, on this number of threads.
Prepared peak() {
  const auto gflops = std::make_shared<double>();
  return {[=] { *gflops = bench::peak_gflops<float>(threads()); },
          [=] {
            return Json{{"gflops", *gflops}};
          }};
}

template <class L>
Prepared layer_work(const Json& row) {
  const std::string work = row.at("work");
  const Sizes sizes(row);
  if (work == "forward") return forward<L>(sizes);
  if (work == "training") return training<L>(sizes);
  if (work == "packed") return training<L>(sizes, lengths_of(row));
  if (work == "tbptt") return tbptt<L>(sizes, {.k1 = size_in(row, "k1"), .k2 = size_in(row, "k2")});
  if (work == "diagnosed") return diagnosed<L>(sizes);
  if (work == "unroll") return training<nn::Unroll<decltype(L::cell)>>(sizes);
  if (work == "char_lm") return char_lm<L>(row);
  if (work == "stepping") return stepping<L>(sizes);
  if (work == "streaming") return streaming<L>(sizes);
  return {};
}

Prepared prepare_in_f32(const Json& row) {
  const std::string work = row.at("work");
  if (work == "peak") return peak();
  if (work == "matmul")
    return matmul(size_in(row, "m"), size_in(row, "k"), size_in(row, "n"), row.at("packed"));
  if (work == "scan") return scan(Sizes(row));
  if (work == "copy") return copy(Sizes(row));
  const std::string kind = row.at("kind");
  if (kind == "peephole")
    return training<nn::Lstm>(Sizes(row), {}, nn::LstmOptions{.peepholes = true});
  if (kind == "projection")
    return training<nn::Lstm>(Sizes(row), {},
                              nn::LstmOptions{.projection_size = size_in(row, "hidden") / 2});
  if (kind == "layer_norm")
    return training<nn::Lstm>(Sizes(row), {}, nn::LstmOptions{.layer_norm = true});
  if (kind == "zoneout")
    return training<nn::Lstm>(Sizes(row), {},
                              nn::LstmOptions{.dropout = {.zoneout_h = 0.1, .zoneout_c = 0.3}});
  if (kind == "own") return training<nn::Recurrent<nn::UnitCell<OwnLstm>>>(Sizes(row));
  if (kind == "mingru") return training<nn::MinGru>(Sizes(row));
  if (kind == "rnn") return layer_work<nn::Rnn>(row);
  if (kind == "gru") return layer_work<nn::Gru>(row);
  return layer_work<nn::Lstm>(row);
}

Prepared prepare(const Json& row) {
  Prepared prepared = prepare_in_f32(row);
  if (row.contains("precision"))
    prepared.call = [call = std::move(prepared.call)] {
      const PrecisionScope scope(Precision::bf16);
      call();
    };
  return prepared;
}

}  // namespace

int main(int argc, char** argv) try {
  set_threads(argc > 1 ? std::stoi(argv[1]) : 1);
  return protocol::serve(
      {{"peer", "Reel"}, {"version", std::string(version())}, {"detail", REEL_COMPILER}}, prepare,
      pool::trim);
} catch (const std::exception& error) {
  return std::cerr << "worker: " << error.what() << '\n', 1;
}
