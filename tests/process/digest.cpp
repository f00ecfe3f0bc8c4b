// Prints the hash of all bits that every op, layer and optimizer gives, a line for each: where two
// sets of instructions agree, so do their lines. See cli/test_levels.py.
#include <reel/autograd/check/op_checks.h>
#include <reel/autograd/check/samples.h>
#include <reel/autograd/hash.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/precision.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/cells/slstm.h>
#include <reel/nn/cells/sru.h>
#include <reel/nn/embedding.h>
#include <reel/nn/linear.h>
#include <reel/nn/stacked.h>
#include <reel/optim/clip.h>

#include <fmt/format.h>

#include <string>

#define DOCTEST_CONFIG_IMPLEMENT  // of the checks in the next header
#include "../optimizers.h"

using namespace reel;
using op::Generator;
using op::OpSpec;

namespace {

class Digest {
 public:
  void add(const Tensor& x) {
    const auto size = static_cast<std::size_t>(x.size()) * size_of(x.dtype());
    hash_ = fnv1a({static_cast<const char*>(x.buffer().data()), size}, hash_);
  }
  void print(const std::string& what) const { fmt::print("{:016x} {}\n", hash_, what); }

 private:
  std::uint64_t hash_ = fnv1a("");
};

// A sample whose axes are `factor` times as long, so that vectors are filled.
OpSpec::Sample scaled(OpSpec::Sample sample, Index factor) {
  for (Generator& generator : sample.inputs)
    for (int axis = 0; axis < generator.shape.rank(); ++axis)
      if (generator.shape[axis] > 1)
        generator.shape = generator.shape.with(axis, factor * generator.shape[axis]);
  return sample;
}

// The results of an op and all of its gradients.
Tensors results(const OpSpec& op, const OpSpec::Sample& sample, DType dtype) {
  Rng rng(17);
  Tape tape;
  Tensors inputs, watched;
  for (const Generator& generator : sample.inputs) {
    Tensor x = generator.draw(rng, dtype);
    if (x.defined() && is_real(x.dtype())) watched.push_back(x = tape.watch(x));
    inputs.push_back(std::move(x));
  }
  std::vector<const Tensor*> pointers;
  for (const Tensor& x : inputs) pointers.push_back(&x);
  Tensors all = op::run(op, pointers, sample.attr.data(), {});
  Tensor loss = scalar(0, dtype);
  for (const Tensor& y : all)
    if (y.dtype() == dtype) loss = loss + sum(y * rng.normal(y.shape(), 1, 1, dtype));
  if (loss.trace().generation == 0 || op::orders_checked(op) == 0) return all;
  const auto gradients = tape.gradient(loss, watched);
  for (std::size_t i = 0; i < watched.size(); ++i) all.push_back(gradients[i].detach());
  return all;
}

void ops() {
  int large = 0;
  for (const OpSpec* op : op::registry()) {
    Digest digest;
    for (const DType dtype : {f32, f64})
      for (const OpSpec::Sample& sample : op->samples) {
        for (const Tensor& x : results(*op, sample, dtype)) digest.add(x);
        try {
          for (const Tensor& x : results(*op, scaled(sample, 13), dtype)) digest.add(x);
          ++large;
        } catch (const Error&) {  // the attributes are for the sample's own size
        }
      }
    digest.print(fmt::format("op {}", op->name));
  }
  fmt::print("{} large samples\n", large);
}

// Five steps of a model with dropout.
template <class Layer>
void train(const std::string& what, const testing::Make& optimizer, Index hidden_size) {
  Params params(3);
  const nn::Embedding embed(params / "embed", 29, 33);
  const nn::Stacked<Layer> layers(params / "layers", 33, hidden_size,
                                  {.layers = 2, .dropout = 0.2});
  const nn::Linear head(params / "head", hidden_size, 29);
  const auto updates = optimizer(params);
  Rng rng(5);
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < 21 * 19; ++i) tokens.push_back(static_cast<std::int32_t>(rng.integer(29)));
  const Tensor text = tensor(Shape{21, 19}, tokens);
  Digest digest;
  typename nn::Stacked<Layer>::State state;
  for (int step = 0; step < 5; ++step) {
    Tape tape;
    const auto [y, next] = layers(embed(text), state, nn::Train{rng});
    const Tensor loss = cross_entropy(head(y), text);
    Gradients gradients = tape.gradient(loss, params);
    optim::clip_by_norm(gradients, 0.5);
    updates->step(gradients);
    state = detach(next);
    digest.add(loss);
    digest.add(y);
  }
  for (const Param& parameter : params.list()) digest.add(parameter.value());
  digest.print(what);
}

void models() {
  const testing::Make& adam = testing::all_optimizers[3];
  for (const Index size : {32, 77, 300}) {
    train<nn::Rnn>(fmt::format("rnn of {}", size), adam, size);
    train<nn::Gru>(fmt::format("gru of {}", size), adam, size);
    train<nn::Lstm>(fmt::format("lstm of {}", size), adam, size);
  }
  {
    const PrecisionScope scope(Precision::bf16);
    train<nn::Gru>("gru with products in bf16", adam, 77);
    train<nn::Lstm>("lstm with products in bf16", adam, 300);
  }
  train<nn::Slstm>("slstm", adam, 77);
  train<nn::Sru>("sru", adam, 77);
  std::vector<testing::Make> optimizers = testing::all_optimizers;
  optimizers.back() = testing::make<optim::Muon>(
      optim::MuonOptions{.groups = {{.params = "*.b", .frozen = true}}});  // of matrices alone
  for (std::size_t k = 0; k < optimizers.size(); ++k)
    train<nn::Lstm>(fmt::format("optimizer {}", k), optimizers[k], 45);
}

}  // namespace

// digest [THREADS]
int main(int argc, char** argv) try {
  if (argc > 1) set_threads(std::stoi(argv[1]));
  ops();
  models();
} catch (const std::exception& error) {
  return fmt::print(stderr, "digest: {}\n", error.what()), 1;
}
