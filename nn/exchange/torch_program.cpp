#include <reel/nn/exchange/torch_program.h>

#include <fmt/args.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/tape.h>
#include <reel/nn/exchange/conversion.h>

namespace reel::nn::exchange {
namespace {

using Names = std::vector<std::string>;

constexpr const char* beginning = R"(import pathlib

import torch
from safetensors.torch import load_file
from torch import nn


)";

// Functions that the module needs only in some models.
constexpr const char* running = R"(def run(layer, x, state, lengths):
    """Runs a recurrent layer over the first `lengths` steps of each row."""
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
    y, state = layer(packed, state)
    return nn.utils.rnn.pad_packed_sequence(y, total_length=x.size(0))[0], state


)";
constexpr const char* reversing = R"(def reversed_steps(x, lengths=None):
    """The first `lengths` steps of each row from the last to the first."""
    if lengths is None:
        return x.flip(0)
    t = torch.arange(x.size(0), device=x.device)[:, None]
    steps = torch.where(t < lengths, lengths - 1 - t, t)
    return x.gather(0, steps[..., None].expand_as(x))


)";
constexpr const char* hiding = R"(def attend(scores, values, lengths=None, causal=False):
    """The context [Q, B, D] from scores [B, Q, T] and values [T, B, D]."""
    if lengths is not None:
        t = torch.arange(scores.size(2), device=scores.device)
        scores = scores.masked_fill(t >= lengths[:, None, None], -torch.inf)
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    return torch.einsum("bqt,tbd->qbd", scores.softmax(-1), values)


)";

[[noreturn]] void refuse(const Param& param, std::string_view what) {
  throw ValueError(fmt::format("save_torch: {} has {}, which PyTorch does not have",
                               module_of(param.name()), what),
                   SiteScope::current());
}

// Throws unless the cell is one of PyTorch's.
template <class C>
void require_exportable(const C& cell) {
  if constexpr (requires { cell.variant; })
    if (cell.variant != LstmVariant::standard) refuse(cell.w_ih, "another variant of the LSTM");
  if constexpr (requires { cell.reset; })
    if (cell.reset == Reset::before) refuse(cell.w_ih, "the reset before the product");
  if (cell.numbers[0].defined()) refuse(cell.w_ih, "peepholes");
  if (cell.numbers[1].defined()) refuse(cell.w_ih, "layer norm within the cell");
  if (std::isfinite(cell.cell_bound)) refuse(cell.w_ih, "a cell_clip");
  if (cell.dropout.zoneout_h > 0 || cell.dropout.zoneout_c > 0) refuse(cell.w_ih, "zoneout");
}

std::string module_of_cell(const RnnCell& cell) {
  return cell.activation == Activation::relu ? "RNN({}, nonlinearity=\"relu\")" : "RNN({})";
}
std::string module_of_cell(const GruCell&) { return "GRU({})"; }
std::string module_of_cell(const LstmCell&) { return "LSTM({})"; }

class Program {
 public:
  explicit Program(const Graph& graph)
      : graph_(graph), names_(static_cast<std::size_t>(graph.value_count())) {}

  std::string text(const std::string& weights_file) {
    Names arguments{"self"};
    for (const graph::Input& input : graph_.inputs()) {
      name(input.value) = input.name;
      arguments.push_back(input.name + (input.kind == graph::InputKind::state ? "=None" : ""));
    }
    for (const graph::Node& node : graph_.nodes()) {
      node_ = &node;
      std::visit([&](const auto& operation) { (*this)(operation); }, node.operation);
    }
    Names results, outputs;
    for (const graph::Output& output : graph_.outputs()) {
      results.push_back(name(output.value));
      outputs.push_back(output.name);
    }
    std::string text =
        fmt::format("\"\"\"A model of Reel: load() gives it with the weights of {}.\"\"\"\n{}",
                    weights_file, beginning);
    if (runs_) text += running;
    if (reverses_) text += reversing;
    if (attends_) text += hiding;
    text += "class Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n";
    for (const std::string& line : modules_) text += "        " + line + '\n';
    text += fmt::format("\n    def forward({}):\n", fmt::join(arguments, ", "));
    for (const std::string& line : lines_) text += "        " + line + '\n';
    text += fmt::format("        # returns {}\n        return {}\n\n\n", fmt::join(outputs, ", "),
                        fmt::join(results, ", "));
    text += fmt::format(
        "def load(file=pathlib.Path(__file__).with_name(\"{}\")):\n"
        "    model = Model(){}\n"
        "    model.load_state_dict(load_file(file))\n"
        "    return model.eval()\n",
        weights_file, graph_.params().dtype() == f64 ? ".double()" : "");
    return text;
  }

  void operator()(const Embedding& layer) {
    call(module(fmt::format("nn.Embedding({}, {})", layer.w.shape()[0], layer.w.shape()[1])));
  }
  void operator()(const Linear& layer) { call(linear(node_->name, layer)); }
  void operator()(const LayerNorm& layer) {
    call(module(fmt::format("nn.LayerNorm({}, eps={})", layer.gain.shape()[0], layer.epsilon)));
  }
  void operator()(const Dropout& layer) { call(module(fmt::format("nn.Dropout({})", layer.rate))); }
  void operator()(const graph::OneHot& op) {
    set(fmt::format("nn.functional.one_hot({}.long(), {}).to(torch.{})", in(0), op.classes,
                    real()));
  }
  void operator()(const graph::Constant& op) {
    if (op.param.defined()) {
      const std::string own = torch_name(op.param.name());
      if (own.find('.') != own.npos) refuse(op.param, "a parameter of no layer");
      const Shape& shape = op.param.shape();
      modules_.push_back(fmt::format("self.{} = nn.Parameter(torch.zeros({}))", own,
                                     fmt::join(shape.begin(), shape.end(), ", ")));
      return set("self." + own);
    }
    const Shape& shape = op.value.shape();
    set(shape.rank() == 0
            ? fmt::format("{}", op.value.item())
            : fmt::format("torch.tensor({}, dtype=torch.{}).reshape({})", op.value.to_vector(),
                          real(), fmt::join(shape.begin(), shape.end(), ", ")));
  }
  void operator()(graph::Function op) {
    constexpr const char* forms[] = {"{} + {}",
                                     "{} - {}",
                                     "{} * {}",
                                     "{} / {}",
                                     "{} @ {}",
                                     "{} < {}",
                                     "{} >= {}",
                                     "{} | {}",
                                     "torch.where({}, {}, {})",
                                     "torch.sqrt({})",
                                     "torch.tanh({})",
                                     "torch.sigmoid({})",
                                     "torch.relu({})",
                                     "{}",
                                     "torch.tensor({}.shape)",
                                     "torch.arange({}, {}, {})",
                                     "{}.expand(*{})"};
    fmt::dynamic_format_arg_store<fmt::format_context> inputs;
    for (std::size_t i = 0; i < node_->inputs.size(); ++i) inputs.push_back(in(i));
    set(fmt::vformat(forms[static_cast<std::size_t>(op)], inputs));
  }
  void operator()(const graph::Softmax& op) {
    set(fmt::format("{}.{}({})", in(0), op.log ? "log_softmax" : "softmax", op.axis));
  }
  void operator()(const graph::Concat& op) {
    Names inputs;
    for (std::size_t i = 0; i < node_->inputs.size(); ++i) inputs.push_back(in(i));
    set(fmt::format("torch.cat([{}], {})", fmt::join(inputs, ", "), op.axis));
  }
  void operator()(const graph::Select& op) {
    set(fmt::format("{}.select({}, {})", in(0), op.axis, op.index));
  }
  void operator()(const graph::Slice& op) {
    std::string index;
    for (int axis = 0; axis < op.axis; ++axis) index += ":, ";
    const std::string end =
        op.end == std::numeric_limits<Index>::max() ? "" : std::to_string(op.end);
    set(fmt::format("{}[{}{}:{}]", in(0), index, op.begin, end));
  }
  void operator()(const graph::AddAxes& op) {
    std::vector<int> axes = op.axes;
    std::ranges::sort(axes);
    std::string x = in(0);
    for (const int axis : axes) x += fmt::format(".unsqueeze({})", axis);
    set(x);
  }
  void operator()(const graph::Cast& op) {
    set(fmt::format("{}.{}()", in(0),
                    op.dtype == f32   ? "float"
                    : op.dtype == f64 ? "double"
                                      : "long"));
  }
  void operator()(const graph::Permute& op) {
    set(fmt::format("{}.permute({})", in(0), fmt::join(op.axes, ", ")));
  }
  void operator()(const graph::Reshape& op) {
    Names sizes;
    for (std::size_t i = 0; i < op.sizes.size(); ++i)
      sizes.push_back(op.sizes[i] == 0 ? fmt::format("{}.size({})", in(0), i)
                                       : std::to_string(op.sizes[i]));
    set(fmt::format("{}.reshape({})", in(0), fmt::join(sizes, ", ")));
  }

  void operator()(const graph::RecurrentLayers& op) {
    std::string form, sizes;
    op.each_cell([&](const auto& cell, Index layer, Index direction) {
      require_exportable(cell);
      if (layer > 0 || direction > 0) return;
      form = module_of_cell(cell);
      sizes = fmt::format("{}, {}", cell.input_size(), cell.hidden_size());
      if (cell.output_size() < cell.hidden_size())
        sizes += fmt::format(", proj_size={}", cell.output_size());
    });
    if (op.layer_count() > 1) sizes += fmt::format(", num_layers={}", op.layer_count());
    if (op.directions() > 1) sizes += ", bidirectional=True";
    if (op.dropout() > 0 && op.layer_count() > 1)
      sizes += fmt::format(", dropout={}", op.dropout());
    const std::string layer = module("nn." + fmt::format(fmt::runtime(form), sizes));

    const bool has_lengths = node_->inputs[1].defined(), has_c = op.has_cell_state();
    const std::string lengths = has_lengths ? ", " + in(1) : "";
    const std::string h0 = node_->inputs[2].defined() ? in(2) : "None";
    std::string x = in(0);
    if (op.reverse) x = fmt::format("reversed_steps({}{})", x, lengths);
    const std::string state =
        has_c ? fmt::format("None if {} is None else ({}, {})", h0, h0, in(3)) : h0;
    const std::string y = fresh(0), h = fresh(1),
                      last = has_c ? fmt::format("({}, {})", h, fresh(2)) : h;
    lines_.push_back(fmt::format("{}, {} = {}", y, last,
                                 has_lengths
                                     ? fmt::format("run({}, {}, {}{})", layer, x, state, lengths)
                                     : fmt::format("{}({}, {})", layer, x, state)));
    if (op.reverse) lines_.push_back(fmt::format("{} = reversed_steps({}{})", y, y, lengths));
    runs_ = runs_ || has_lengths;
    reverses_ = reverses_ || op.reverse;
  }

  void operator()(const graph::Attention& op) {
    std::visit([&](const auto& layer) { attend(layer, op.causal); }, op.layer);
  }

 private:
  const char* real() const { return graph_.params().dtype() == f64 ? "float64" : "float32"; }
  std::string& name(GraphValue value) { return names_[static_cast<std::size_t>(value.index)]; }
  std::string in(std::size_t i) { return name(node_->inputs[i]); }
  std::string fresh(std::size_t output) {
    return name(node_->outputs[output]) = fmt::format("x{}", ++values_);
  }
  void set(const std::string& expression) { lines_.push_back(fresh(0) + " = " + expression); }
  void call(const std::string& module) { set(fmt::format("{}({})", module, in(0))); }

  std::string module(const std::string& construction) {
    return add_module(node_->name, construction);
  }

  // The expression for a module of this name, which is made once. Names with points are modules in
  // modules.
  std::string add_module(const std::string& part, const std::string& construction) {
    const std::string own = torch_name(part.empty() ? "layer" : part);
    Names parts;
    std::string access = "self", outer;
    for (std::size_t begin = 0, end = 0; begin <= own.size(); begin = end + 1) {
      end = std::min(own.find('.', begin), own.size());
      const std::string one = own.substr(begin, end - begin);
      const bool is_last = end == own.size();
      outer += (outer.empty() ? "" : ".") + one;
      const bool is_number = std::isdigit(static_cast<unsigned char>(one[0])) != 0;
      if (made_.insert(outer).second) {
        const std::string what = is_last ? construction : "nn.Module()";
        modules_.push_back(is_number ? fmt::format("{}.add_module(\"{}\", {})", access, one, what)
                                     : fmt::format("{}.{} = {}", access, one, what));
      }
      access += is_number ? fmt::format(".get_submodule(\"{}\")", one) : "." + one;
    }
    return access;
  }

  std::string linear(const std::string& part, const Linear& layer) {
    const Shape& shape = layer.w.shape();
    const bool is_new = !made_.contains(torch_name(part));
    std::string result = add_module(part, fmt::format("nn.Linear({}, {}{})", shape[1], shape[0],
                                                      layer.b.defined() ? "" : ", bias=False"));
    const std::string owner(module_of(layer.w.name()));
    if (is_new && owner != part && made_.contains(torch_name(owner)))
      modules_.push_back(
          fmt::format("{}.weight = {}.weight  # tied", result, add_module(owner, "")));
    return result;
  }

  void attend_to(const std::string& scores, bool causal) {
    attends_ = true;
    set(fmt::format("attend({}, {}{}{})", scores, in(1),
                    node_->inputs[2].defined() ? ", lengths=" + in(2) : "",
                    causal ? ", causal=True" : ""));
  }
  void attend(const DotAttention& layer, bool causal) {
    attend_to(fmt::format("torch.einsum(\"qbd,tbd->bqt\", {}, {}){}", in(0), in(1),
                          layer.scaled ? fmt::format(" / {}.size(-1) ** 0.5", in(0)) : ""),
              causal);
  }
  void attend(const GeneralAttention& layer, bool causal) {
    const std::string key = linear(node_->name + ".key", layer.key);
    attend_to(fmt::format("torch.einsum(\"qbd,tbd->bqt\", {}, {}({}))", in(0), key, in(1)), causal);
  }
  void attend(const AdditiveAttention& layer, bool causal) {
    const auto part = [&](const char* name, const Linear& of) {
      return linear(node_->name + name, of);
    };
    const std::string query = part(".query", layer.query), key = part(".key", layer.key);
    attend_to(fmt::format("{}(torch.tanh({}({})[:, None] + {}({}))).squeeze(-1).permute(2, 0, 1)",
                          part(".score", layer.score), query, in(0), key, in(1)),
              causal);
  }
  void attend(const MultiHeadAttention& layer, bool causal) {
    const Index size = layer.output.w.shape()[0];
    const Index key_size = layer.key.w.shape()[1], value_size = layer.value.w.shape()[1];
    std::string sizes = fmt::format("{}, {}", size, layer.heads);
    if (layer.dropout.rate > 0) sizes += fmt::format(", dropout={}", layer.dropout.rate);
    if (!layer.query.b.defined()) sizes += ", bias=False";
    if (key_size != size || value_size != size)
      sizes += fmt::format(", kdim={}, vdim={}", key_size, value_size);
    const std::string own = module(fmt::format("nn.MultiheadAttention({})", sizes));
    std::string options = ", need_weights=False";
    if (node_->inputs[2].defined())
      options += fmt::format(
          ", key_padding_mask=torch.arange({0}.size(0), device={0}.device) >= {1}[:, None]", in(1),
          in(2));
    if (causal)
      options += fmt::format(
          ", attn_mask=torch.ones({}.size(0), {}.size(0), dtype=torch.bool, "
          "device={}.device).triu(1)",
          in(0), in(1), in(0));
    set(fmt::format("{}({}, {}, {}{})[0]", own, in(0), in(1), in(1), options));
  }

  const Graph& graph_;
  Names names_;  // of the graph's values
  Names modules_, lines_;
  std::set<std::string> made_;
  const graph::Node* node_ = nullptr;
  int values_ = 0;
  bool runs_ = false, reverses_ = false, attends_ = false;
};

}  // namespace

std::string torch_program(const Graph& graph, const std::string& weights_file) {
  for (const char c : weights_file)
    if (c == '"' || c == '\\' || c == '\n')
      throw ValueError(
          "save_torch: the name of the file is written into a program, and may have no "
          "quotes, backslashes or ends of lines",
          SiteScope::current());
  return Program(graph).text(weights_file);
}

NamedTensors torch_weights(const Graph& graph) {
  const NoRecord pause;
  std::set<std::string> used;
  std::map<std::string, TorchPlace> places;
  for (const graph::Node& node : graph.nodes()) {
    for (const Param& param : graph::params_of(node.operation)) used.insert(param.name());
    if (const auto* layers = std::get_if<graph::RecurrentLayers>(&node.operation))
      layers->each_cell([&](const auto& cell, Index layer, Index direction) {
        places[std::string(module_of(cell.w_ih.name()))] = {
            torch_name(node.name.empty() ? "layer" : node.name),
            fmt::format("_l{}{}", layer, direction == 1 ? "_reverse" : "")};
      });
  }
  std::vector<Part> parts = parts_of(graph.params());
  std::erase_if(parts, [&](const Part& part) {
    return std::ranges::none_of(part.params,
                                [&](const auto& p) { return used.contains(p.second.name()); });
  });
  return exported(as_torch(parts, nullptr, places), GateOrder::torch);
}

}  // namespace reel::nn::exchange
