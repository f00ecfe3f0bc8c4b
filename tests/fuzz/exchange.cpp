#include <fstream>
#include <iterator>

#include <reel/nn/cells/lstm.h>
#include <reel/nn/embedding.h>
#include <reel/nn/exchange/onnx.h>
#include <reel/nn/files/npy.h>

#include "../temporary_directory.h"
#include "memory_file.h"
#include "target.h"

// Files of other frameworks.
namespace reel::fuzz {
namespace {

// What `save` writes.
template <class Save>
std::string saved(Save save) {
  const TemporaryDirectory directory;
  save(directory / "file");
  std::ifstream stream(directory / "file", std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::vector<std::string> onnx_examples() {
  const Params params(1);
  nn::Graph graph(params);
  const nn::Embedding embed(params / "embed", 3, 2);
  const nn::Stacked<nn::Bidirectional<nn::Lstm>> lstm(params / "lstm", 2, 2, {.dropout = 0.1});
  const nn::Stacked<nn::Gru> gru(params / "gru", 4, 2, {.layers = 1});
  const nn::MultiHeadAttention attention(params / "attention", 2, 1);
  const auto lengths = graph.lengths();
  const auto x = graph(gru, graph(lstm, graph(embed, graph.tokens("tokens")), lengths));
  graph.output("y", graph.softmax(graph(attention, x, x, lengths, {.causal = true})));
  return {saved([&](const auto& path) { nn::save_onnx(graph, path); })};
}

std::vector<std::string> none() { return {}; }

void read_onnx(std::string_view input) {
  const MemoryFile file(input);
  nn::load_onnx(file.path());
}

std::vector<std::string> npy_examples() {
  std::vector<std::string> files;
  for (const DType dtype : {f32, f64, i32})
    files.push_back(saved([&](const auto& path) { nn::save_npy(path, zeros({2, 3}, dtype)); }));
  std::string fortran = files[0];
  fortran.replace(fortran.find("False"), 5, "True ");
  files.push_back(fortran);
  return files;
}

void read_npy(std::string_view input) {
  const MemoryFile file(input);
  nn::load_npy(file.path()).to_vector();
}

}  // namespace

const Target onnx{"onnx", onnx_examples, none, read_onnx};
const Target npy{"npy", npy_examples, none, read_npy};

}  // namespace reel::fuzz
