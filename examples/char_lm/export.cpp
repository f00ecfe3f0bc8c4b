#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <reel/nn/exchange/onnx.h>
#include <reel/nn/exchange/torch.h>
#include <reel/nn/files/npy.h>

#include "commands.h"
#include "output.h"
#include "trained.h"

namespace reel::char_lm {
namespace {

// What the tokens are, in their order: a program that samples from the model needs it.
std::string symbols_of(const Vocabulary& vocabulary) {
  nlohmann::json symbols = nlohmann::json::array();
  for (std::int32_t token = 0; token < vocabulary.size(); ++token)
    symbols.push_back(vocabulary.readable({{token}}));
  return symbols.dump();
}

template <class Model>
nn::Graph graph_of(const Model& model, const Params& params) {
  nn::Graph graph(params);
  const nn::GraphValue tokens = graph.tokens("tokens");
  const nn::GraphValue x = model.embed.table() ? graph(*model.embed.table(), tokens)
                                               : graph.one_hot(tokens, model.embed.size());
  graph.output("logits", graph(model.head, graph(model.rnn, x)));
  return graph;
}

void note(const std::filesystem::path& path, const std::string& what) {
  print(fmt::format("{}: {}\n", path.string(), what));
}

template <class Model>
int write_all(const Model& model, const Params& params, const RunConfig& config,
              const ExportOptions& options) {
  const nn::Graph graph = graph_of(model, params);
  const std::map<std::string, std::string> metadata{{"symbols", symbols_of(*config.vocabulary)}};
  if (options.onnx) {
    nn::save_onnx(graph, *options.onnx, metadata);
    note(*options.onnx, params.dtype() == f64
                            ? "ONNX; ONNX Runtime has no recurrent layers in f64, though"
                            : "ONNX, with the symbols in its metadata");
  }
  if (options.torch) {
    nn::save_torch(graph, *options.torch, metadata);
    std::filesystem::path program = *options.torch;
    note(*options.torch, "weights for PyTorch");
    note(program.replace_extension(".py"), "its module; load() gives it with the weights");
  }
  if (options.keras) {
    nn::save_npz(*options.keras, nn::weights_as(nn::GateOrder::keras, params));
    note(*options.keras, "weights for Keras, by Variable.path");
  }
  if (options.flax) {
    nn::save_npz(*options.flax, nn::weights_as(nn::GateOrder::flax, params));
    note(*options.flax, "weights for Flax, for unflatten_dict(..., sep=\"/\")");
  }
  return 0;
}

}  // namespace

int export_model(const ExportOptions& options) {
  return with_trained_params(
      RunDirectory(options.run), options.checkpoint,
      [&]<class L>(const CharLm<L>& model, const Params& params, const RunConfig& config) {
        return write_all(model, params, config, options);
      });
}

}  // namespace reel::char_lm
