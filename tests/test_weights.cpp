// Weights of other frameworks: golden/make_weights.py has the same models in PyTorch, Keras and
// Flax.
#include <doctest/doctest.h>

#include <reel/reel.h>

#include "golden_directory.h"
#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using testing::same_bits;

namespace {

struct Golden {
  nn::NamedTensors weights;
  Tensor tokens, y;
};

Golden golden(const std::string& framework) {
  const auto all = nn::load_safetensors(REEL_GOLDEN_DIR "/weights_" + framework + ".safetensors");
  return {all.part("weights:"), all["tokens"], all["y"]};
}

double largest_difference(const Tensor& x, const Tensor& y) {
  REQUIRE(x.shape() == y.shape());
  return max(abs(x - y)).item();
}

constexpr Index vocabulary = 7, embedded = 4, units = 6, classes = 3;

struct TorchModel {
  explicit TorchModel(const Params& p)
      : embed(p / "embed", vocabulary, embedded),
        lstm(p / "lstm", embedded, units),
        norm(p / "norm", 2 * units),
        gru(p / "gru", 2 * units, units),
        rnn(p / "rnn", units, units, {.activation = Activation::relu}),
        attention(p / "attention", units, 2),
        projected(p / "projected", units, units, {.projection_size = 2}),
        cell(p / "cell", 2, units),
        head(p / "head", units, classes) {}
  Tensor operator()(const Tensor& tokens) const {
    const Tensor x = rnn(gru(norm(lstm(embed(tokens)).y)).y).y;
    const Tensor y = projected(attention(x, attention.memory(x)).context).y;
    return head(cell(y[-1]).y);
  }
  nn::Embedding embed;
  nn::Stacked<nn::Bidirectional<nn::Lstm>> lstm;
  nn::LayerNorm norm;
  nn::Gru gru;
  nn::Rnn rnn;
  nn::MultiHeadAttention attention;
  nn::Lstm projected;
  nn::GruCell cell;
  nn::Linear head;
};

struct KerasModel {
  explicit KerasModel(const Params& p)
      : embed(p / "embed", vocabulary, embedded),
        rnn0(p / "rnn" / "0", embedded, units),
        rnn1(p / "rnn" / "1", units, units, {.reset = Reset::before}),
        both(p / "both", units, units),
        norm(p / "norm", 2 * units),
        plain(p / "plain", 2 * units, units),
        head(p / "head", units, classes) {}
  Tensor operator()(const Tensor& tokens) const {
    return head(plain(norm(both(rnn1(rnn0(embed(tokens)).y).y).y)).y);
  }
  nn::Embedding embed;
  nn::Gru rnn0, rnn1;
  nn::Bidirectional<nn::Lstm> both;
  nn::LayerNorm norm;
  nn::Rnn plain;
  nn::Linear head;
};

struct FlaxModel {
  explicit FlaxModel(const Params& p)
      : embed(p / "embed", vocabulary, embedded),
        rnn(p / "rnn", embedded, units),
        plain(p / "plain", units, units),
        norm(p / "norm", units),
        head(p / "head", units, classes) {}
  Tensor operator()(const Tensor& tokens) const {
    return head(norm(plain(rnn(embed(tokens)).y).y));
  }
  nn::Embedding embed;
  nn::Stacked<nn::Gru, nn::Lstm> rnn;
  nn::Rnn plain;
  nn::LayerNorm norm;
  nn::Linear head;
};

template <class Model>
void check_weights(const std::string& framework, nn::GateOrder order, double tolerance = 1e-12) {
  CAPTURE(framework);
  const Golden their = golden(framework);
  CHECK(nn::gate_order_of(their.weights) == order);
  const Params params(1, f64);
  const Model model(params);
  CHECK(nn::load_weights(their.weights, order, params).complete());
  CHECK(largest_difference(model(their.tokens), their.y) < tolerance);

  // And back: in a fresh model the same numbers.
  const nn::NamedTensors exported = nn::weights_as(order, params);
  CHECK(nn::gate_order_of(exported) == order);
  const Params fresh(2, f64);
  const Model again(fresh);
  CHECK(nn::load_weights(exported, order, fresh).complete());
  for (const Param& param : params.list())
    CHECK(same_bits(fresh[param.name()].value(), param.value()));
}

template <class F>
std::string message(F&& f) {
  return testing::message_without_line<ValueError>(std::forward<F>(f));
}

}  // namespace

TEST_CASE("weights: models of PyTorch, Keras and Flax give their outputs here, and go back") {
  check_weights<TorchModel>("torch", nn::GateOrder::torch);
  check_weights<KerasModel>("keras", nn::GateOrder::keras, 1e-6);  // its layer norm is not in f64
  check_weights<FlaxModel>("flax", nn::GateOrder::flax);
}

TEST_CASE("weights: exported names and shapes are those of the framework") {
  const auto check = [&]<class Model>(const std::string& framework, nn::GateOrder order,
                                      const std::string& prefix, Model*) {
    const Params params(1, f64);
    const Model model(params);
    const nn::NamedTensors ours = nn::weights_as(order, params);
    const Golden their = golden(framework);
    for (const auto& array : their.weights.tensors) {
      const std::string& name = array.first;
      // A cell's own module has other names than a layer's, and Reel cannot know which was meant.
      if (name.starts_with("cell.")) continue;
      CAPTURE(name);
      CHECK(ours[name.substr(prefix.size())].shape() == array.second.shape());
    }
    CHECK(ours.tensors.size() == their.weights.tensors.size());
  };
  check("torch", nn::GateOrder::torch, "", static_cast<TorchModel*>(nullptr));
  check("keras", nn::GateOrder::keras, "", static_cast<KerasModel*>(nullptr));
  check("flax", nn::GateOrder::flax, "params/", static_cast<FlaxModel*>(nullptr));
}

TEST_CASE(
    "weights: stacks are one module of PyTorch where it can be, layers of their own elsewhere") {
  const auto names = [](const auto& make) {
    const Params params(1);
    make(params / "rnn");
    std::vector<std::string> names;
    for (const auto& [name, value] : nn::weights_as(nn::GateOrder::torch, params).tensors)
      if (name.find("weight") != name.npos) names.push_back(name);
    return names;
  };
  using Names = std::vector<std::string>;
  CHECK(names([](const Params& p) { nn::Stacked<nn::Rnn>(p, 3, 4); }) ==
        Names{"rnn.weight_hh_l0", "rnn.weight_hh_l1", "rnn.weight_ih_l0", "rnn.weight_ih_l1"});
  CHECK(names([](const Params& p) {
          nn::Stacked<nn::Rnn>(p, 3, 4, {.widths = {5, 4}});
        }) == Names{"rnn.0.weight_hh_l0", "rnn.0.weight_ih_l0", "rnn.1.weight_hh_l0",
                    "rnn.1.weight_ih_l0"});
  CHECK(names([](const Params& p) { nn::Stacked<nn::Rnn, nn::Gru>(p, 3, 4); }) ==
        Names{"rnn.0.weight_hh_l0", "rnn.0.weight_ih_l0", "rnn.1.weight_hh_l0",
              "rnn.1.weight_ih_l0"});
  CHECK(names([](const Params& p) { nn::Stacked<nn::Rnn>(p, 3, 4, {.layer_norm = true}); }) ==
        Names{"rnn.0.weight_hh_l0", "rnn.0.weight_ih_l0", "rnn.1.weight_hh_l0",
              "rnn.1.weight_ih_l0", "rnn.norm0.weight"});
  CHECK(names([](const Params& p) { nn::Bidirectional<nn::Stacked<nn::Rnn>>(p, 3, 4); }) ==
        Names{"rnn.backward.weight_hh_l0", "rnn.backward.weight_hh_l1", "rnn.backward.weight_ih_l0",
              "rnn.backward.weight_ih_l1", "rnn.forward_.weight_hh_l0", "rnn.forward_.weight_hh_l1",
              "rnn.forward_.weight_ih_l0", "rnn.forward_.weight_ih_l1"});
  // A sum of both directions does not fit on top of a bidirectional layer of PyTorch.
  CHECK(names([](const Params& p) {
          nn::Stacked<nn::Bidirectional<nn::Rnn>>(p, 3, 4, {},
                                                  nn::BidirectionalOptions{nn::Merge::sum});
        }).front() == "rnn.0.weight_hh_l0");
}

TEST_CASE("weights: tied layers have both names, and one value") {
  const Params params(1);
  const nn::Embedding embed(params / "embed", 5, 3);
  const nn::Linear head(params / "head", embed);
  nn::NamedTensors exported = nn::weights_as(nn::GateOrder::torch, params);
  CHECK(same_bits(exported["head.weight"], exported["embed.weight"]));
  CHECK(nn::load_weights(exported, nn::GateOrder::torch, params).complete());
  exported.tensors["head.weight"] = ones({5, 3});
  CHECK(message([&] { nn::load_weights(exported, nn::GateOrder::torch, params); }) ==
        "load_weights: the weights of PyTorch do not fit this model: embed.w has two values, but "
        "the model ties the layers that have it");
}

TEST_CASE("weights: a root layer, parameters of no layer, no biases") {
  const Params root(1);
  const nn::Gru gru(root, 2, 3);
  nn::NamedTensors exported = nn::weights_as(nn::GateOrder::torch, root);
  CHECK(exported.tensors.contains("weight_ih_l0"));
  for (const char* bias : {"bias_ih_l0", "bias_hh_l0"}) exported.tensors.erase(bias);
  CHECK(nn::load_weights(exported, nn::GateOrder::torch, root).complete());
  CHECK(sum(abs(gru.cell.b)).item() + sum(abs(gru.cell.b_hn)).item() == 0);

  const Params own(1);
  own.create("scale", {2}, nn::init::constant(3));
  CHECK(nn::weights_as(nn::GateOrder::torch, own).tensors.contains("scale"));
}

TEST_CASE("weights: what does not fit is listed with both shapes, and nothing is loaded") {
  const auto their = golden("torch").weights;
  const Params params(1, f64);
  const nn::Embedding embed(params / "embed", vocabulary, embedded);
  const nn::Stacked<nn::Lstm> lstm(params / "lstm", embedded, units + 1);
  const nn::Linear head(params / "head", units, classes + 1);
  const Tensor before = embed.w.value();
  CHECK(message([&] { nn::load_weights(their, nn::GateOrder::torch, params); }) ==
        "load_weights: the weights of PyTorch do not fit this model: lstm.weight_ih_l0 is [24, 4], "
        "but the model has [28, 4], lstm.weight_hh_l0 is [24, 6], but the model has [28, 7], "
        "lstm.bias_ih_l0 is [24], but the model has [28] and 44 more");
  CHECK(same_bits(embed.w.value(), before));
  CHECK(message([&] { nn::load_weights(their, nn::GateOrder::keras, params); })
            .starts_with("load_weights: the weights of Keras do not fit this model: "
                         "embed/embeddings is missing, "));

  const Params part(1, f64);
  const nn::Embedding table(part / "embed", vocabulary, embedded);
  const nn::Linear other(part / "other", 2, 3);
  const nn::LoadReport report =
      nn::load_weights(their, nn::GateOrder::torch, part, {.partial = true});
  CHECK(same_bits(table.w.value(), their["embed.weight"]));
  CHECK(report.missing == std::vector<std::string>{"other.weight", "other.bias"});
  CHECK(report.unused.size() == their.tensors.size() - 1);
  CHECK(report.str() ==
        "not in the file: other.weight, other.bias; not used: attention.in_proj_bias, "
        "attention.in_proj_weight, attention.out_proj.bias and 38 more");
}

TEST_CASE("weights: layers that a framework does not have, and names that fit twice, are refused") {
  const auto refusal = [](nn::GateOrder order, const auto& make) {
    const Params params(1);
    make(params / "rnn");
    return message([&] { nn::weights_as(order, params); });
  };
  const auto begins = [](const std::string& text, const std::string& start) {
    CAPTURE(text);
    CHECK(text.starts_with(start));
  };
  using enum nn::GateOrder;
  begins(refusal(torch, [](const Params& p) { nn::Sru(p, 2, 3); }),
         "rnn has the weights of Sru, which PyTorch does not have; save_safetensors(");
  begins(refusal(torch, [](const Params& p) { nn::Slstm(p, 2, 3); }),
         "rnn has the weights of SlstmCell, which PyTorch");
  begins(refusal(torch, [](const Params& p) { nn::Gru(p, 2, 3, {.reset = Reset::before}); }),
         "rnn has the weights of GruCell with Reset::before, which PyTorch");
  begins(refusal(torch, [](const Params& p) { nn::Lstm(p, 2, 3, {.peepholes = true}); }),
         "rnn has the weights of LstmCell with peepholes, which PyTorch");
  begins(refusal(torch, [](const Params& p) { nn::Lstm(p, 2, 3, {.cell_clip = 3}); }),
         "rnn has the weights of LstmCell with a cell_clip, which");
  begins(refusal(torch,
                 [](const Params& p) {
                   nn::Lstm(p, 2, 3, {.variant = LstmVariant::no_output_activation});
                 }),
         "rnn has the weights of LstmCell of another variant, which");
  begins(refusal(keras, [](const Params& p) { nn::Rnn(p, 2, 3, {.layer_norm = true}); }),
         "rnn has the weights of RnnCell with layer norm, which Keras");
  begins(refusal(flax, [](const Params& p) { nn::Lstm(p, 2, 3, {.projection_size = 2}); }),
         "rnn has the weights of LstmCell with a projection, which Flax");
  begins(refusal(keras, [](const Params& p) { nn::MultiHeadAttention(p, 4, 2); }),
         "rnn has the weights of MultiHeadAttention, which Keras");

  const Params params(1);
  const nn::Linear head(params / "head", 2, 3);
  nn::NamedTensors twice;
  twice.tensors = {{"a/head/kernel", ones({2, 3})}, {"b/head/kernel", ones({2, 3})}};
  CHECK(
      message([&] { nn::load_weights(twice, keras, params); }) ==
      "load_weights: kernel of head could be each of a/head/kernel, b/head/kernel; rename all but "
      "one");
  CHECK(message([&] {
          nn::gate_order_of(twice);
        }).starts_with("the order of the gates cannot be told from the names: "));
  const Params clash(1);
  const nn::Linear one(clash / "a" / "b", 2, 3), two(clash / "a_b", 2, 3);
  CHECK(message([&] { nn::weights_as(keras, clash); }) ==
        "weights_as: two arrays would have the name a_b/kernel in Keras; rename the part a_b");
}

TEST_CASE("weights: numbers are rounded only where asked") {
  const Params params(1);
  const nn::Linear head(params / "head", 1, 1);
  nn::NamedTensors exact;
  exact.tensors = {{"head.weight", full({1, 1}, 0.1, f64)}, {"head.bias", full({1}, 0.2, f64)}};
  CHECK(testing::message_without_line<DTypeError>(
            [&] { nn::load_weights(exact, nn::GateOrder::torch, params); }) ==
        "load_weights: head.weight is f64, but the model f32; build it in f64, or ask for {.round "
        "= true}");
  nn::load_weights(exact, nn::GateOrder::torch, params, {.round = true});
  CHECK(head.w.value().item() == 0.1f);
  const Params wide(1, f64);
  const nn::Linear other(wide / "head", 1, 1);
  nn::load_weights(nn::weights_as(nn::GateOrder::torch, params), nn::GateOrder::torch, wide);
  CHECK(other.w.value().item() == static_cast<double>(0.1f));
}
