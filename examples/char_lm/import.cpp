#include <fmt/format.h>

#include <algorithm>
#include <set>

#include <reel/autograd/message.h>
#include <reel/datasets/text.h>
#include <reel/nn/exchange/torch.h>
#include <reel/nn/files/npy.h>
#include <reel/nn/files/safetensors.h>

#include "commands.h"
#include "corpus.h"
#include "output.h"
#include "words.h"

namespace reel::char_lm {
namespace {

nn::NamedTensors read_weights(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  if (name.ends_with(".npz")) return nn::load_npz(path);
  return name.ends_with(".index.json") ? nn::load_sharded_safetensors(path)
                                       : nn::load_safetensors(path);
}

nn::GateOrder order_named(const std::string& name) {
  if (name == "torch") return nn::GateOrder::torch;
  if (name == "keras") return nn::GateOrder::keras;
  return name == "flax" ? nn::GateOrder::flax : nn::GateOrder::reel;
}

// The name with NEW in place of the parts that are OLD.
std::string renamed(const std::string& name, const std::string& old, const std::string& with) {
  std::string result;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find_first_of("./", begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    result += (part == old ? with : part) + (end < name.size() ? name.substr(end, 1) : "");
    begin = end + 1;
  }
  return result;
}

nn::NamedTensors with_renames(nn::NamedTensors arrays, const ImportOptions& options) {
  for (const auto& [old, with] : options.renames) {
    nn::NamedTensors next;
    bool found = false;
    for (auto& [name, x] : arrays.tensors) {
      const std::string to = renamed(name, old, with);
      found = found || to != name;
      if (!next.tensors.emplace(to, x).second)
        throw ValueError(fmt::format("--rename {}={} gives two arrays the name {}", printable(old),
                                     printable(with), printable(to)));
    }
    if (!found)
      throw ValueError(fmt::format("--rename {}={}: no array has {} in its name", printable(old),
                                   printable(with), in_quotes(old)));
    arrays = std::move(next);
  }
  return arrays;
}

// What the arrays tell of the model, where it was not said: a recurrent matrix is [gates · H, H] or
// the other way round, or in Flax one for each gate.
void guess(const nn::NamedTensors& arrays, const ImportOptions& options, Settings& settings) {
  Index hidden = 0, gates = 0;
  int layers = 0;
  std::set<std::string> of_layer;  // in Flax
  for (const auto& [name, x] : arrays.tensors) {
    const bool has_end = name.ends_with("recurrent_kernel") || name.ends_with(".w_hh");
    if (x.rank() == 2 && (has_end || name.find("weight_hh_l") != name.npos)) {
      hidden = std::min(x.size(0), x.size(1));
      gates = std::max(x.size(0), x.size(1)) / std::max<Index>(hidden, 1);
      ++layers;
    }
    for (const std::string gate : {"/h/kernel", "/hn/kernel", "/ho/kernel"})
      if (x.rank() == 2 && name.ends_with(gate)) {
        hidden = x.size(0);
        gates = gate == "/h/kernel" ? 1 : gate == "/hn/kernel" ? 3 : 4;
        ++layers;
      }
  }
  if (layers == 0) return;
  if (!options.given.contains("model"))
    settings.model = gates == 4 ? "lstm" : gates == 3 ? "gru" : "rnn";
  if (!options.given.contains("hidden")) settings.hidden = static_cast<int>(hidden);
  if (!options.given.contains("layers")) settings.layers = layers;
  if (options.given.contains("embed")) return;
  settings.embed = 0;
  for (const auto& [name, x] : arrays.tensors)
    if (name.find("embed") != name.npos && x.rank() == 2)
      settings.embed = static_cast<int>(x.size(1));
}

// The row of each token's symbol, by a file that has the symbols in the order of the rows.
std::vector<std::int32_t> rows_of(const std::filesystem::path& path, const Vocabulary& vocabulary) {
  const std::vector<std::int32_t> tokens = [&] {
    try {
      return vocabulary.encode(datasets::read_text(path));
    } catch (const ValueError& error) {
      throw ValueError(fmt::format("--symbols {}: {}", short_path(path), error.message()));
    }
  }();
  std::vector<std::int32_t> rows(static_cast<std::size_t>(vocabulary.size()), -1);
  for (std::size_t row = 0; row < tokens.size(); ++row) {
    std::int32_t& place = rows[static_cast<std::size_t>(tokens[row])];
    if (place >= 0)
      throw ValueError(fmt::format("--symbols {}: {} occurs twice", short_path(path),
                                   vocabulary.name(tokens[row])));
    place = static_cast<std::int32_t>(row);
  }
  if (const auto missing = std::ranges::find(rows, -1); missing != rows.end())
    throw ValueError(
        fmt::format("--symbols {}: {}, which the text has, is not there", short_path(path),
                    vocabulary.name(static_cast<std::int32_t>(missing - rows.begin()))));
  return rows;
}

}  // namespace

int import_model(const ImportOptions& options) {
  StartWeights start{.arrays = with_renames(read_weights(options.weights), options)};
  start.order = options.from ? order_named(*options.from) : nn::gate_order_of(start.arrays);
  TrainOptions train_options;
  train_options.run = options.run;
  train_options.text = options.text;
  train_options.settings = options.settings;
  train_options.start = &start;
  guess(start.arrays, options, train_options.settings);
  if (options.symbols) {
    const std::filesystem::path path = options.text.value_or("");
    const Settings& settings = train_options.settings;
    start.rows = rows_of(
        *options.symbols,
        *corpus_of(find_text(path, settings, is_large(path, settings)), settings).vocabulary);
  }
  return train(train_options);
}

}  // namespace reel::char_lm
