#include <reel/autograd/ops.h>
#include <reel/nn/exchange/conversion.h>

/// Keras 3. A layer's path is made of its own name, in which points are underscores here, of the
/// direction in a Bidirectional, and of the cell: both/forward_lstm/lstm_cell/kernel.
namespace reel::nn::exchange {
namespace {

constexpr std::string_view framework = "Keras";

struct Cell {
  const char* name;
  std::string_view ours, theirs;  // the orders of the gates
};

Cell cell_of(const Part& part) {
  if (part.kind == "RnnCell") return {"simple_rnn", "h", "h"};
  if (part.kind == "LstmCell") return {"lstm", "ifgo", "ifgo"};
  return {"gru", "rzn", "zrn"};
}

bool is_gru_before(const Part& part) { return part.kind == "GruCell with Reset::before"; }

// A GRU has two rows of biases if the reset gate acts after the product (reset_after=True), one if
// before.
Conversion recurrent(const Part& part) {
  const Cell cell = cell_of(part);
  const std::size_t known = part.params.contains("b_hn") ? 4 : 3;
  if (part.params.size() != known) refuse(part, framework);
  Array array{
      .layer = part.name, .leaf = "", .shape = {}, .between = cell.name + std::string("_cell")};
  for (const std::string direction : {"forward", "backward"})
    if (part.name.ends_with("." + direction)) {
      array.layer = part.name.substr(0, part.name.size() - direction.size() - 1);
      array.direction = direction;
      array.between = direction + "_" + cell.name + "/" + array.between;
    }
  const bool two_rows = known == 4 && !is_gru_before(part);
  const Shape &w = part.shape("w_ih"), &u = part.shape("w_hh");
  Conversion c{.part = &part, .arrays = {}, .to = {}, .from = {}};
  const auto add = [&](const char* leaf, const Shape& shape, bool optional) {
    array.leaf = leaf;
    array.shape = shape;
    array.optional = optional;
    c.arrays.push_back(array);
  };
  add("kernel", {w[1], w[0]}, false);
  add("recurrent_kernel", {u[1], u[0]}, false);
  add("bias", two_rows ? Shape{2, w[0]} : Shape{w[0]}, true);
  c.to = [cell, two_rows](const Values& v) {
    const auto theirs = [&](const Tensor& x) { return reordered(x, cell.ours, cell.theirs); };
    const std::vector<Tensor> both = two_biases(v);
    const Tensor bias =
        two_rows ? stack({theirs(both[0]), theirs(both[1])}) : theirs(both[0] + both[1]);
    return std::vector<Tensor>{transpose(theirs(v.at("w_ih"))), transpose(theirs(v.at("w_hh"))),
                               bias};
  };
  c.from = [cell, two_rows, &part](const std::vector<Tensor>& a) {
    const auto ours = [&](const Tensor& x) { return reordered(x, cell.theirs, cell.ours); };
    Tensor of_input, of_state;
    if (a[2].defined()) of_input = ours(two_rows ? a[2][0] : a[2]);
    if (a[2].defined() && two_rows) of_state = ours(a[2][1]);
    Values values = biases(part, of_input, of_state, a[0]);
    values.emplace("w_ih", ours(transpose(a[0])));
    values.emplace("w_hh", ours(transpose(a[1])));
    return values;
  };
  return c;
}

}  // namespace

Conversion as_keras(const Part& part) {
  if (part.is_common_cell() || is_gru_before(part)) return recurrent(part);
  if (part.kind.empty()) return unchanged(part);
  if (part.kind == "Linear") return renamed(part, {{"w", "kernel"}, {"b", "bias"}}, true);
  if (part.kind == "Embedding") return renamed(part, {{"w", "embeddings"}});
  if (part.kind == "LayerNorm") return renamed(part, {{"gain", "gamma"}, {"bias", "beta"}});
  refuse(part, framework);
}

}  // namespace reel::nn::exchange
