// Writes models in the files of other frameworks, with their inputs and outputs, and runs those of
// others: see test_exchange.py.
//
//     exchange write FOLDER
//     exchange run MODEL.onnx VALUES.safetensors OUTPUTS.safetensors [AGAIN.onnx]
//
// The last one runs a model, and writes it once more.
#include <reel/reel.h>

#include <filesystem>
#include <iostream>

#include "examples.h"

using namespace reel;

namespace {

using Values = std::map<std::string, Tensor>;

void write(const std::filesystem::path& folder) {
  for (const testing::ExchangeExample& example : testing::exchange_examples()) {
    const nn::Graph graph = example.made();
    Rng rng(2);
    const Values inputs = testing::inputs_of(graph, rng);
    nn::NamedTensors values;
    for (const auto& [name, value] : inputs) values.tensors["in:" + name] = value;
    for (const auto& [name, value] : graph(inputs)) values.tensors["out:" + name] = value;
    nn::save_safetensors(folder / (example.name + "_values.safetensors"), values);
    if (example.in_onnx) nn::save_onnx(graph, folder / (example.name + ".onnx"));
    if (example.in_torch) nn::save_torch(graph, folder / (example.name + ".safetensors"));
  }
}

void run(const std::vector<std::string>& words) {
  const nn::Graph graph = nn::load_onnx(words[2]);
  Values inputs;
  for (const auto& [name, value] : nn::load_safetensors(words[3]).part("in:").tensors)
    inputs[name] = value;
  nn::NamedTensors results;
  for (const auto& [name, value] : graph(inputs)) results.tensors["out:" + name] = value;
  nn::save_safetensors(words[4], results);
  if (words.size() > 5) nn::save_onnx(graph, words[5]);
}

}  // namespace

int main(int argc, char** argv) try {
  const std::vector<std::string> words(argv, argv + argc);
  if (words.size() == 3 && words[1] == "write") {
    write(words[2]);
    return 0;
  }
  if (words.size() > 4 && words[1] == "run") {
    run(words);
    return 0;
  }
  return 2;
} catch (const std::exception& error) {
  return std::cerr << "exchange: " << error.what() << '\n', 1;
}
