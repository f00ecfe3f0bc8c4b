#pragma once

#include <reel/nn/exchange/graph.h>
#include <reel/nn/files/location.h>

/// ONNX files (https://onnx.ai), which ONNX Runtime and many others run.
namespace reel::nn {

/// Writes a model as an ONNX file of opset 17, with the inputs and outputs of the graph: tokens are
/// int64 [T, B], lengths int32 [B], states [layers · directions, B, H]; T and B may be any. All
/// inputs have to be given there, states too. Recurrent layers are standard nodes with layout 0,
/// which ONNX Runtime runs in f32 only. `metadata` are texts by name. The file is replaced as a
/// whole, see AtomicFile. Throws ValueError, naming the layer, for what ONNX does not have:
/// projection, layer norm within a cell, variants of the LSTM, zoneout, cell_clip. FileError if
/// writing fails.
void save_onnx(const Graph& graph, const Location& where,
               const std::map<std::string, std::string>& metadata = {}, Site site = {});

/// Reads a model of Linear, Embedding, Rnn, Gru, Lstm, LayerNorm, Dropout, attention and the
/// operators between them: Add, Cast, Concat, Constant, Div, Dropout, Flatten, Gather, Gemm, GRU,
/// Identity, LayerNormalization, LogSoftmax, LSTM, MatMul, Mul, Relu, Reshape, RNN, Sigmoid,
/// Softmax, Squeeze, Sub, Tanh, Transpose, Unsqueeze, of opset 7 to 21. Weights are parameters,
/// named as in the file, so it can be trained on; those of a recurrent node have Reel's layout
/// under the name of the node. Weights in other files (external data) are read from the folder of
/// the model and what is below it; checksums are not compared. The files are untrusted input.
/// Throws FileError with the path and, where it is about a node, its name and attribute: for what
/// cannot be read or is malformed, for other operators, attributes and activations, for other
/// opsets, and if names of weights are the same after their characters beside letters, digits and
/// points became "_"; with the weight and its file where that is absolute, has "..", is missing, or
/// does not have the bytes of the shape and type.
Graph load_onnx(const Location& where);

}  // namespace reel::nn
