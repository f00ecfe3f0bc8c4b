#include <reel/nn/exchange/torch.h>

#include <filesystem>

#include <reel/autograd/engine/scope.h>
#include <reel/nn/exchange/conversion.h>
#include <reel/nn/exchange/torch_program.h>
#include <reel/nn/files/atomic_file.h>
#include <reel/nn/files/safetensors.h>
#include <reel/nn/files/system.h>

namespace reel::nn {

void save_torch(const Params& params, const Location& where, Site site) {
  save_safetensors(where, weights_as(GateOrder::torch, params, site), site);
}

void save_torch(const Graph& graph, const Location& where,
                const std::map<std::string, std::string>& metadata, Site site) {
  const SiteScope scope(site);
  std::filesystem::path program = where.path();
  program.replace_extension(".py");
  const std::string text = exchange::torch_program(graph, system::utf8(where.path().filename()));
  NamedTensors weights = exchange::torch_weights(graph);
  weights.metadata.insert(metadata.begin(), metadata.end());
  save_safetensors(where, weights, site);
  write_file(program, text);
}

LoadReport load_torch(const Location& where, const Params& params, const LoadOptions& options,
                      Site site) {
  const bool has_index = system::utf8(where.name()).ends_with(".index.json");
  const NamedTensors source = has_index ? load_sharded_safetensors(where) : load_safetensors(where);
  return load_weights(source, GateOrder::torch, params, options, site);
}

}  // namespace reel::nn
