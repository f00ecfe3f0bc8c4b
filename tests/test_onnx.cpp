// Reading ONNX files: what is refused, with the node and the attribute.
#include <doctest/doctest.h>

#include <reel/nn/exchange/onnx_file.h>
#include <reel/reel.h>

#include "exchange/examples.h"
#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using nn::onnx::Array;
using nn::onnx::Attribute;
using nn::onnx::Node;
using nn::onnx::Type;

namespace {

using Model = nn::onnx::Model;

// x [T, B, 2] -> an LSTM of 3 units -> y.
Model lstm_model() {
  Model model;
  model.opset = 17;
  model.inputs = {{"x", Type::f32, {"T", "B", "2"}}};
  model.outputs = {{"y", Type::f32, {"T", "B", "3"}}};
  model.arrays = {Array::of("W", full({1, 12, 2}, 0.1)), Array::of("R", full({1, 12, 3}, 0.2)),
                  Array::of("axes", std::vector<std::int64_t>{1})};
  Node lstm{"LSTM", "cell", {"x", "W", "R"}, {"Y"}};
  lstm.attributes = {{"hidden_size", Attribute::of(std::int64_t{3})}};
  model.nodes = {lstm, {"Squeeze", "squeeze", {"Y", "axes"}, {"y"}}};
  return model;
}

nn::Graph load(const Model& model) {
  const TemporaryDirectory directory;
  return nn::load_onnx(directory.file("m.onnx", nn::onnx::encoded(model)));
}

// What is said of the file after a change of its model.
template <class Change>
std::string refusal(Change&& change) {
  Model model = lstm_model();
  change(model);
  const TemporaryDirectory directory;
  const auto path = directory.file("m.onnx", nn::onnx::encoded(model));
  const std::string text = testing::message_without_line<FileError>([&] { nn::load_onnx(path); });
  CHECK(text.starts_with(path.string() + ": "));
  return text.substr(std::min(text.size(), path.string().size() + 2));
}

}  // namespace

TEST_CASE("onnx: a model is read, and its parameters can be trained on") {
  const nn::Graph graph = load(lstm_model());
  const Tensor x = ones({4, 2, 2});
  const Params params = graph.params();
  CHECK(params.list().size() == 3);
  CHECK(params["cell.w_ih"].shape() == Shape{12, 2});
  Tape tape;
  const Tensor y = graph({{"x", x}}).at("y");
  CHECK(y.shape() == Shape{4, 2, 3});
  CHECK(norm(tape.gradient(sum(y), params)["cell.w_hh"]).item() > 0);
}

TEST_CASE("onnx: what is written is read with the same outputs, and written again") {
  const TemporaryDirectory directory;
  const auto path = directory / "m.onnx";
  for (const testing::ExchangeExample& example : testing::exchange_examples()) {
    if (!example.in_onnx) continue;
    CAPTURE(example.name);
    nn::Graph graph = example.made();
    Rng rng(2);
    const auto inputs = testing::inputs_of(graph, rng);
    const auto expected = graph(inputs);
    for (int i = 0; i < 2; ++i) {
      nn::save_onnx(graph, path, {{"note", "\xC3\xA9"}});
      graph = nn::load_onnx(path);
      for (const auto& output : graph(inputs)) {
        CAPTURE(output.first);
        CHECK(max(abs(output.second - expected.at(output.first))).item() < 1e-6);
      }
    }
  }
}

TEST_CASE("onnx: sizes that may be any keep their names") {
  Model model = lstm_model();
  model.inputs[0].dims = {"steps", "batch", "2"};
  const TemporaryDirectory directory;
  nn::save_onnx(load(model), directory / "m.onnx");
  std::ifstream file(directory / "m.onnx", std::ios::binary);
  const std::string content(std::istreambuf_iterator<char>(file), {});
  CHECK(nn::onnx::decoded(content).outputs[0].dims ==
        std::vector<std::string>{"steps", "batch", "3"});
}

TEST_CASE("onnx: lengths, reverse and states of nodes") {
  Model model = lstm_model();
  model.inputs.push_back({"n", Type::i32, {"B"}});
  model.inputs.push_back({"h0", Type::f32, {"1", "B", "3"}});
  model.outputs.push_back({"h", Type::f32, {"1", "B", "3"}});
  model.nodes[0].inputs = {"x", "W", "R", "", "n", "h0", "h0"};
  model.nodes[0].outputs = {"Y", "h"};
  model.nodes[0].attributes["direction"] = Attribute::of(std::string("reverse"));
  const nn::Graph graph = load(model);
  Rng rng(1);
  const Tensor x = rng.normal({4, 2, 2}, 0, 1), n = tensor({2}, {3, 4}, i32);
  const auto results = graph({{"x", x}, {"n", n}});  // h0 is a state, which may be left out
  const Tensor alone =
      graph({{"x", slice(slice(x, 1, 0, 1), 0, 0, 3)}, {"n", tensor({1}, {3}, i32)}}).at("h");
  CHECK(testing::same_bits(results.at("h")[0][0], alone[0][0]));
}

TEST_CASE("onnx: what Reel does not have is refused, naming node and attribute") {
  const auto with = [](const char* name, const Attribute& value) {
    return refusal([&](Model& m) { m.nodes[0].attributes[name] = value; });
  };
  const std::string cell = "node \"cell\" (LSTM): ";
  CHECK(with("clip", Attribute::of(3.0f)) == cell + "the attribute \"clip\" is not supported");
  CHECK(with("layout", Attribute::of(std::int64_t{1})) ==
        cell + "the attribute layout has to be 0");
  CHECK(with("input_forget", Attribute::of(std::int64_t{1})) ==
        cell + "the attribute input_forget has to be 0");
  CHECK(with("direction", Attribute::of(std::string("sideways"))) ==
        cell + "the attribute direction is \"sideways\"");
  CHECK(with("hidden_size", Attribute::of(std::int64_t{4})) ==
        cell + "the attribute hidden_size is 4, but R is [1, 12, 3]");
  CHECK(with("activations", Attribute::of(std::vector<std::string>{"Sigmoid", "Relu", "Tanh"})) ==
        cell +
            "the attribute activations is Sigmoid, Relu, Tanh, and Reel has Sigmoid, Tanh, Tanh");
  CHECK(with("activation_alpha", Attribute::of(std::vector<std::int64_t>{1})) ==
        cell + "the attribute \"activation_alpha\" is not supported");

  CHECK(refusal([](Model& m) { m.nodes[1].outputs.clear(); }) ==
        "node \"squeeze\" (Squeeze): it has no output");
  CHECK(refusal([](Model& m) { m.nodes[1].operation = "Conv"; }) ==
        "node \"squeeze\" (Conv): there is no such operator in Reel");
  CHECK(refusal([](Model& m) { m.opset = 22; }) ==
        "its opset is 22, and those from 7 to 21 are read");
  CHECK(refusal([](Model& m) { m.opset = 6; }) ==
        "its opset is 6, and those from 7 to 21 are read");
  CHECK(refusal([](Model& m) { m.nodes[0].inputs[1] = "x"; }) ==
        cell + "its weights W are computed, but have to be constants");
  CHECK(refusal([](Model& m) { m.nodes[0].inputs[0] = "z"; }) ==
        "\"z\" is read before anything has made it");
  CHECK(refusal([](Model& m) {
          m.arrays[1] = Array::of("R", ones({1, 12, 4}));
        }) == cell + "its R is [1, 12, 4], but has to be [1, 16, 4]");
  CHECK(refusal([](Model& m) {
          m.arrays[0] = Array::of("W", ones({12, 2}));
        }) == cell + "its W is [12, 2], but has three axes");
  CHECK(refusal([](Model& m) { m.arrays.push_back(m.arrays[0]); }) == "two arrays are named \"W\"");
  CHECK(refusal([](Model& m) { m.arrays[0].type = static_cast<Type>(16); }) ==
        "array \"W\" has elements of the type 16, which Reel does not read");
  CHECK(refusal([](Model& m) { m.arrays[0].dims[1] = 13; }) ==
        "array \"W\" has 96 bytes, which its shape does not take");
  CHECK(refusal([](Model& m) { m.inputs[0].type = static_cast<Type>(8); }) ==
        "its input \"x\" has elements of the type 8, which Reel does not read");
  CHECK(refusal([](Model& m) {
          m.nodes.push_back({"Mul", "twice", {"y", "A.b"}, {"z"}});
          m.nodes.push_back({"Mul", "thrice", {"z", "A/b"}, {"w"}});
          m.nodes.push_back({"Mul", "more", {"w", "A_b"}, {"v"}});
          for (const char* name : {"A.b", "A/b", "A_b"})
            m.arrays.push_back(Array::of(name, ones({3})));
        }) == "two weights or nodes would have the name A_b, as \"A_b\" has");
}

TEST_CASE("onnx: files that are none") {
  const TemporaryDirectory directory;
  const auto refused = [&](const std::string& content) {
    const auto path = directory.file("m.onnx", content);
    return testing::message_without_line<FileError>([&] { nn::load_onnx(path); })
        .substr(path.string().size() + 2);
  };
  const std::string whole = nn::onnx::encoded(lstm_model());
  CHECK(refused("") == "it is no ONNX file: it has no graph or opset");
  CHECK(refused("hello") == "it is no ONNX file, or a damaged one");
  for (std::size_t size = 1; size < whole.size(); size += 7) {
    const std::string text = refused(whole.substr(0, size));
    CHECK(text != "nothing thrown");
  }
}
