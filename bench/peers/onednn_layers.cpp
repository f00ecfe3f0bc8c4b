// oneDNN's side of the benchmark, a worker of bench/compare.py: onednn_layers THREADS
// Weights are reordered to the primitives' own layouts before timing starts.
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "../protocol.h"

static_assert(DNNL_VERSION_MAJOR == 2, "the primitives' descriptors are those of version 2");

namespace {

using namespace dnnl;
using protocol::Json;
using protocol::Prepared;
using protocol::size_in;
using Arguments = std::unordered_map<int, memory>;
using Desc = memory::desc;
using Tag = memory::format_tag;

const engine& cpu() {
  static const engine the_engine(engine::kind::cpu, 0);
  return the_engine;
}

Desc floats(memory::dims dims, Tag tag) { return {std::move(dims), memory::data_type::f32, tag}; }

// Memory with this descriptor, filled with a small number.
memory filled(const Desc& desc, float value) {
  memory m(desc, cpu());
  std::fill_n(static_cast<float*>(m.get_data_handle()), desc.get_size() / sizeof(float), value);
  return m;
}

// A copy in another layout.
memory laid_out(memory plain, const Desc& desc) {
  memory m(desc, cpu());
  stream s(cpu());
  reorder(plain, m).execute(s, plain, m);
  s.wait();
  return m;
}

struct Lstm {
  using Forward = lstm_forward;
  using Backward = lstm_backward;
  static constexpr memory::dim gates = 4, biases = 4;
};
struct Gru {
  using Forward = lbr_gru_forward;
  using Backward = lbr_gru_backward;
  static constexpr memory::dim gates = 3, biases = 4;
};
struct Rnn {
  using Forward = vanilla_rnn_forward;
  using Backward = vanilla_rnn_backward;
  static constexpr memory::dim gates = 1, biases = 1;
};

// A stack of layers of one kind, and the memory of its inputs and results.
template <class Kind>
class Layers {
 public:
  using Forward = typename Kind::Forward;
  using Backward = typename Kind::Backward;

  Layers(const Json& row, memory::dim steps, prop_kind pass)
      : count_(size_in(row, "layers")),
        inputs_(size_in(row, "inputs")),
        hidden_(size_in(row, "hidden")),
        x_(floats({steps, size_in(row, "batch"), inputs_}, Tag::tnc)),
        y_(floats({steps, size_in(row, "batch"), hidden_}, Tag::tnc)),
        state_(floats({count_, 1, size_in(row, "batch"), hidden_}, Tag::ldnc)),
        b_(floats({count_, 1, Kind::biases, hidden_}, Tag::ldgo)),
        forward_desc_(describe_forward(pass)),
        forward_(forward_desc_),
        arguments_{{DNNL_ARG_SRC_LAYER, filled(x_, 0.1f)},
                   {DNNL_ARG_WEIGHTS_LAYER,
                    laid_out(filled(w_x(Tag::ldigo), 0.01f), forward_desc_.weights_layer_desc())},
                   {DNNL_ARG_WEIGHTS_ITER,
                    laid_out(filled(w_h(Tag::ldigo), 0.01f), forward_desc_.weights_iter_desc())},
                   {DNNL_ARG_BIAS, filled(b_, 0.01f)},
                   {DNNL_ARG_DST_LAYER, filled(y_, 0)},
                   {DNNL_ARG_SRC_ITER, filled(state_, 0)},
                   {DNNL_ARG_DST_ITER, filled(state_, 0)}} {
    if (has_cells) {
      arguments_[DNNL_ARG_SRC_ITER_C] = filled(state_, 0);
      arguments_[DNNL_ARG_DST_ITER_C] = filled(state_, 0);
    }
    if (pass == prop_kind::forward_training)
      arguments_[DNNL_ARG_WORKSPACE] = memory(forward_desc_.workspace_desc(), cpu());
  }

  void run_forward() { execute(forward_, arguments_); }

  // The last state becomes the first.
  void advance() {
    std::swap(arguments_.at(DNNL_ARG_SRC_ITER), arguments_.at(DNNL_ARG_DST_ITER));
    if (has_cells)
      std::swap(arguments_.at(DNNL_ARG_SRC_ITER_C), arguments_.at(DNNL_ARG_DST_ITER_C));
  }

  // A function that runs the backward pass, after run_forward. The primitive adds to the gradients
  // of the weights, so they are zeroed first.
  std::function<void()> backward() {
    const auto desc = describe_backward();
    Arguments arguments = arguments_;
    arguments[DNNL_ARG_WEIGHTS_LAYER] =
        laid_out(filled(w_x(Tag::ldigo), 0.01f), desc.weights_layer_desc());
    arguments[DNNL_ARG_WEIGHTS_ITER] =
        laid_out(filled(w_h(Tag::ldigo), 0.01f), desc.weights_iter_desc());
    arguments[DNNL_ARG_DIFF_SRC_LAYER] = filled(x_, 0);
    arguments[DNNL_ARG_DIFF_DST_LAYER] = filled(y_, 0.1f);
    arguments[DNNL_ARG_DIFF_SRC_ITER] = filled(state_, 0);
    arguments[DNNL_ARG_DIFF_DST_ITER] = filled(state_, 0);
    if (has_cells) {
      arguments[DNNL_ARG_DIFF_SRC_ITER_C] = filled(state_, 0);
      arguments[DNNL_ARG_DIFF_DST_ITER_C] = filled(state_, 0);
    }
    const std::vector<memory> sums{filled(desc.diff_weights_layer_desc(), 0),
                                   filled(desc.diff_weights_iter_desc(), 0),
                                   filled(desc.diff_bias_desc(), 0)};
    arguments[DNNL_ARG_DIFF_WEIGHTS_LAYER] = sums[0];
    arguments[DNNL_ARG_DIFF_WEIGHTS_ITER] = sums[1];
    arguments[DNNL_ARG_DIFF_BIAS] = sums[2];
    return [=, primitive = Backward(desc)] {
      for (const memory& sum : sums)
        std::memset(sum.get_data_handle(), 0, sum.get_desc().get_size());
      execute(primitive, arguments);
    };
  }

 private:
  static constexpr bool has_cells = std::is_same_v<Kind, Lstm>;
  static constexpr auto direction = rnn_direction::unidirectional_left2right;

  static void execute(const primitive& p, const Arguments& arguments) {
    stream s(cpu());
    p.execute(s, arguments);
    s.wait();
  }

  Desc w_x(Tag tag) const { return floats({count_, 1, inputs_, Kind::gates, hidden_}, tag); }
  Desc w_h(Tag tag) const { return floats({count_, 1, hidden_, Kind::gates, hidden_}, tag); }

  typename Forward::primitive_desc describe_forward(prop_kind pass) const {
    const Desc wx = w_x(Tag::any), wh = w_h(Tag::any);
    if constexpr (has_cells)
      return {{pass, direction, x_, state_, state_, wx, wh, b_, y_, state_, state_}, cpu()};
    else if constexpr (std::is_same_v<Kind, Rnn>)
      return {{pass, algorithm::eltwise_tanh, direction, x_, state_, wx, wh, b_, y_, state_},
              cpu()};
    else
      return {{pass, direction, x_, state_, wx, wh, b_, y_, state_}, cpu()};
  }

  // The gradients have the shapes of what they belong to.
  typename Backward::primitive_desc describe_backward() const {
    const Desc wx = w_x(Tag::any), wh = w_h(Tag::any);
    constexpr auto pass = prop_kind::backward;
    if constexpr (has_cells)
      return {{pass,   direction, x_,     state_, state_, wx, wh, b_, y_,     state_,
               state_, x_,        state_, state_, wx,     wh, b_, y_, state_, state_},
              cpu(),
              forward_desc_};
    else if constexpr (std::is_same_v<Kind, Rnn>)
      return {{pass, algorithm::eltwise_tanh, direction, x_, state_, wx, wh, b_, y_, state_, x_,
               state_, wx, wh, b_, y_, state_},
              cpu(),
              forward_desc_};
    else
      return {
          {pass, direction, x_, state_, wx, wh, b_, y_, state_, x_, state_, wx, wh, b_, y_, state_},
          cpu(),
          forward_desc_};
  }

  memory::dim count_, inputs_, hidden_;
  Desc x_, y_, state_, b_;
  typename Forward::primitive_desc forward_desc_;
  Forward forward_;
  Arguments arguments_;
};

template <class Kind>
Prepared layer_work(const Json& row) {
  using Stack = Layers<Kind>;
  const std::string work = row.at("work");
  const memory::dim steps = size_in(row, "steps");
  if (work == "forward") {
    const auto layers = std::make_shared<Stack>(row, steps, prop_kind::forward_inference);
    return {[=] { layers->run_forward(); }, {}};
  }
  if (work == "training") {
    const auto layers = std::make_shared<Stack>(row, steps, prop_kind::forward_training);
    const auto call = [layers, backward = layers->backward()] {
      layers->run_forward();
      backward();
    };
    return {call, {}};
  }
  if (work == "stepping") {
    const auto layers = std::make_shared<Stack>(row, 1, prop_kind::forward_inference);
    const auto call = [=] {
      for (memory::dim t = 0; t < steps; ++t) {
        layers->run_forward();
        layers->advance();
      }
    };
    return {call, {}};
  }
  return {};
}

Prepared product(memory::dim m, memory::dim k, memory::dim n, bool packed) {
  const Desc b = floats({k, n}, Tag::ab), c = floats({m, n}, Tag::ab);
  const matmul::primitive_desc desc(
      {floats({m, k}, Tag::ab), floats({k, n}, packed ? Tag::any : Tag::ab), c}, cpu());
  const Arguments arguments{{DNNL_ARG_SRC, filled(floats({m, k}, Tag::ab), 0.25f)},
                            {DNNL_ARG_WEIGHTS, laid_out(filled(b, 0.5f), desc.weights_desc())},
                            {DNNL_ARG_DST, filled(c, 0)}};
  const auto call = [primitive = matmul(desc), arguments] {
    stream s(cpu());
    primitive.execute(s, arguments);
    s.wait();
  };
  return {call, {}};
}

Prepared prepare(const Json& row) {
  if (row.at("work") == "matmul")
    return product(size_in(row, "m"), size_in(row, "k"), size_in(row, "n"), row.at("packed"));
  const std::string kind = row.at("kind");
  if (kind == "rnn") return layer_work<Rnn>(row);
  if (kind == "gru") return layer_work<Gru>(row);
  return layer_work<Lstm>(row);
}

}  // namespace

int main(int argc, char** argv) try {
  omp_set_num_threads(argc > 1 ? std::stoi(argv[1]) : 1);
  const dnnl_version_t* version = dnnl_version();
  const std::string number = std::to_string(version->major) + '.' + std::to_string(version->minor) +
                             '.' + std::to_string(version->patch);
  return protocol::serve({{"peer", "oneDNN"}, {"version", number}, {"detail", "C++"}}, prepare);
} catch (const std::exception& error) {
  return std::cerr << "onednn_layers: " << error.what() << '\n', 1;
}
