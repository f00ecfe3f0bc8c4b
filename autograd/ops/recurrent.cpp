#include <fmt/format.h>

#include <algorithm>
#include <string>

#include <reel/autograd/cell.h>
#include <reel/autograd/checkpoint.h>
#include <reel/autograd/engine/scope.h>
#include <reel/autograd/engine/segments.h>
#include <reel/autograd/kernels/recurrent.h>
#include <reel/autograd/observer.h>
#include <reel/autograd/ops.h>

// The op that runs a recurrent cell over a sequence. Its inputs are x, the lengths, and then for
// each direction the parameters and the states; its outputs y, for each direction the last states,
// and hidden for the backward pass
//   sums  [D T, B, S H]  of each direction: the pre-activations, as a cell's functions keep them
//   kept  [D K T, B, H]  the states after h at all steps
// of which only the tokens, numbered without padding, are used. In the backward pass the gradients
// of the sums take their place.
namespace reel::op {
namespace {

using kernels::CellLayout;

enum Input { X, LENGTHS, PARAMETERS };

// The inputs of a direction, of which an op leaves out those that none of its cells has.
enum Parameter { W_IH, W_HH, B, RECURRENT_BIAS, WEIGHTS, STATES };

struct Layout {
  const CellLayout& cell;
  int directions;
  bool takes_recurrent_bias, takes_weights;

  explicit Layout(const CellCall& call)
      : cell(call.cell->layout),
        directions(call.both ? 2 : 1),
        takes_recurrent_bias(call.takes_recurrent_bias),
        takes_weights(call.takes_weights) {}

  bool takes(int parameter) const {
    return parameter == RECURRENT_BIAS ? takes_recurrent_bias
           : parameter == WEIGHTS      ? takes_weights
                                       : true;
  }
  // An input that is taken.
  int input(int direction, int parameter) const {
    const int left_out = (parameter > RECURRENT_BIAS && !takes_recurrent_bias) +
                         (parameter > WEIGHTS && !takes_weights);
    return PARAMETERS + direction * count() + parameter - left_out;
  }
  int count() const { return B + 1 + takes_recurrent_bias + takes_weights + cell.states; }
  int last_state(int direction, int k) const { return 1 + direction * cell.states + k; }
  int sums() const { return last_state(directions, 0); }
  int kept() const { return sums() + 1; }
};

// --- the shape rule ---

// Whether the condition holds; the message is built only on failure, as this runs in every call.
template <class Message>
void require(const Arguments& in, bool fits, Message message) {
  if (!fits) in.fail(message());
}

void check_direction(const Arguments& in, const Layout& layout, int direction, Index h_size) {
  const CellLayout& cell = layout.cell;
  const Index rows = in[X][1], features = in[X][2];
  const auto at = [&](int parameter) { return layout.input(direction, parameter); };
  const Index gates = cell.inputs * h_size;
  require(in, in[at(W_HH)] == Shape{cell.recurrent_blocks() * h_size, h_size},
          [&] { return fmt::format("w_hh must be [{} H, H]", cell.recurrent_blocks()); });
  require(in, in[at(W_IH)].rank() == 2 && in[at(W_IH)][0] == gates,
          [&] { return fmt::format("w_ih must be [{}, D] for this w_hh", gates); });
  require(in, in[at(W_IH)][1] == features, [&] {
    return fmt::format("x has {} features, but the layer takes {}", features, in[at(W_IH)][1]);
  });
  require(in, !in.has(at(B)) || in[at(B)] == Shape{gates},
          [&] { return fmt::format("b must be [{}]", gates); });
  const auto has = [&](int parameter) { return layout.takes(parameter) && in.has(at(parameter)); };
  require(in, !has(RECURRENT_BIAS) || in[at(RECURRENT_BIAS)] == Shape{h_size},
          [&] { return fmt::format("b_hn must be [{}]", h_size); });
  require(in,
          has(WEIGHTS) ? cell.weights > 0 && in[at(WEIGHTS)] == Shape{cell.weights * h_size}
                       : cell.weights == 0,
          [&] {
            return fmt::format("this cell has {} numbers per unit beside its products",
                               cell.weights);
          });
  for (int k = 0; k < cell.states; ++k)
    require(in, !in.has(at(STATES + k)) || in[at(STATES + k)] == Shape{rows, h_size}, [&] {
      return fmt::format("{} must be [{}, {}] for this x", k == 0 ? "h0" : "c0", rows, h_size);
    });
}

Shapes shapes(const Arguments& in, const CellCall& call) {
  const Layout layout(call);
  require(in, in[X].rank() == 3, [] { return "x must be [T, B, D]: steps, batch, features"; });
  const Shape& w_hh = in[layout.input(0, W_HH)];
  require(in, w_hh.rank() == 2,
          [&] { return fmt::format("w_hh must be [{} H, H]", layout.cell.recurrent_blocks()); });
  const Index steps = in[X][0], rows = in[X][1], n = w_hh[1];
  require(in, steps > 0, [] { return "the sequence has no steps"; });
  require(in, !in.has(LENGTHS) || in[LENGTHS] == Shape{rows},
          [&] { return fmt::format("lengths must be [{}] for this x", rows); });
  for (int d = 0; d < layout.directions; ++d) check_direction(in, layout, d, n);
  Shapes result(Shape{steps, rows, layout.directions * n});
  for (int k = 0; k < layout.directions * layout.cell.states; ++k) result.add(Shape{rows, n});
  const Index of_steps = layout.directions * steps;
  result.add(Shape{of_steps, rows, layout.cell.sums * n});
  result.add(Shape{of_steps * (layout.cell.states - 1), rows, n});
  return result;
}

CellInputs inputs_of(std::span<const Tensor> in, const Layout& layout, int direction) {
  const auto at = [&](int parameter) {
    return layout.takes(parameter)
               ? in[static_cast<std::size_t>(layout.input(direction, parameter))]
               : Tensor();
  };
  CellInputs inputs{at(W_IH), at(W_HH), at(B), at(RECURRENT_BIAS), at(WEIGHTS), {}};
  for (int k = 0; k < layout.cell.states; ++k)
    inputs.states[static_cast<std::size_t>(k)] = at(STATES + k);
  return inputs;
}

// --- the kernels ---

template <Real T>
using Directions = PoolVector<kernels::Direction<T>>;

// `in(i)` points to input i, null if it is absent.
template <Real T, class In>
Directions<T> directions_of(const Layout& layout, const CellCall& call, In in) {
  Directions<T> directions;
  for (int d = 0; d < layout.directions; ++d) {
    const auto at = [&](int parameter) -> const T* {
      return layout.takes(parameter) ? in(layout.input(d, parameter)) : nullptr;
    };
    auto& to = directions.emplace_back(kernels::Direction<T>{
        call.reverse != (d == 1), at(W_IH), at(W_HH), at(B), at(RECURRENT_BIAS), at(WEIGHTS), {}});
    for (int k = 0; k < layout.cell.states; ++k)
      to.initial[static_cast<std::size_t>(k)] = at(STATES + k);
  }
  return directions;
}

template <Real T>
void forward(Ctx<T> c, const CellCall& call) {
  const Layout layout(call);
  const Shape& x = c.shape(X);
  const Index n = c.shape(layout.input(0, W_HH))[1], rows = x[1], all = x[0] * rows;
  const Index width = layout.cell.sums * n;
  const kernels::Steps steps(x[0], rows, c.has(LENGTHS) ? c.indices(LENGTHS).data() : nullptr);
  const auto directions =
      directions_of<T>(layout, call, [&](int i) { return c.has(i) ? c.in(i).data() : nullptr; });
  const Scratch<T> own(c.recording() ? 0 : layout.directions * steps.tokens() * width);
  PoolVector<kernels::DirectionResults<T>> results;
  for (int d = 0; d < layout.directions; ++d) {
    auto& to = results.emplace_back();
    to.y = c.out().data() + d * n;
    to.sums = c.recording() ? c.out(layout.sums()).data() + d * all * width
                            : own.data() + d * steps.tokens() * width;
    for (int k = 0; k < layout.cell.states; ++k) {
      const auto state = static_cast<std::size_t>(k);
      to.last[state] = c.out(layout.last_state(d, k)).data();
      if (k > 0 && c.recording())
        to.kept[state] =
            c.out(layout.kept()).data() + (d * (layout.cell.states - 1) + k - 1) * all * n;
    }
  }
  const kernels::Recurrence<T> layer{call.cell->kernels<T>(), steps,          x[2],      n,
                                     layout.directions * n,   c.in(X).data(), directions};
  layer.forward(results);
}

// The observer sees the layer before the pass overwrites what it kept, and the parameters as
// tensors, for calls of the cell's step.
template <Real T>
void show(Observer& observer, BackwardCtx<T> c, const CellCall& call,
          const kernels::Recurrence<T>& layer,
          PoolVector<kernels::DirectionGradients<T>>& gradients) {
  const Layout layout(call);
  Tensors inputs(PARAMETERS + static_cast<std::size_t>(layout.directions * layout.count()));
  for (std::size_t i = PARAMETERS; i < inputs.size(); ++i)
    if (const int input = static_cast<int>(i); c.has(input)) {
      inputs[i] = Tensor(c.shape(input), dtype_of<T>);
      std::copy_n(c.in(input), inputs[i].size(), inputs[i].begin_update<T>().data());
    }
  for (std::size_t d = 0; d < gradients.size(); ++d)
    gradients[d].d_h_squares = observer.before_backward(ObservedPass<T>{
        *call.cell, layer, gradients[d], d, inputs_of(inputs, layout, static_cast<int>(d))});
}

template <Real T>
void backward(BackwardCtx<T> c, const CellCall& call) {
  const Layout layout(call);
  const Shape& x = c.shape(X);
  const Index n = c.shape(layout.input(0, W_HH))[1], rows = x[1], all = x[0] * rows;
  const Index width = layout.cell.sums * n;
  const kernels::Steps steps(x[0], rows, c.has(LENGTHS) ? c.indices(LENGTHS) : nullptr);
  const auto directions = directions_of<T>(layout, call, [&](int i) { return c.in(i); });
  // The gradients overwrite the sums, unless the tape is kept.
  T* const reusable = c.reusable(layout.sums());
  const Scratch<T> own(reusable ? 0 : layout.directions * all * width);
  if (!reusable) std::copy_n(c.out(layout.sums()), layout.directions * all * width, own.data());
  PoolVector<kernels::DirectionGradients<T>> gradients;
  for (int d = 0; d < layout.directions; ++d) {
    const auto grad = [&](int parameter) -> T* {
      return layout.takes(parameter) ? c.grad(layout.input(d, parameter)) : nullptr;
    };
    auto& to = gradients.emplace_back();
    to.y = c.out() + d * n;
    to.dy = c.g() ? c.g() + d * n : nullptr;
    to.sums = (reusable ? reusable : own.data()) + d * all * width;
    to.dw_ih = grad(W_IH);
    to.dw_hh = grad(W_HH);
    to.db = grad(B);
    to.d_recurrent_bias = grad(RECURRENT_BIAS);
    to.d_weights = grad(WEIGHTS);
    for (int k = 0; k < layout.cell.states; ++k) {
      const auto state = static_cast<std::size_t>(k);
      to.d_last[state] = c.g(layout.last_state(d, k));
      to.d_initial[state] = grad(STATES + k);
      if (k > 0)
        to.kept[state] = c.out(layout.kept()) + (d * (layout.cell.states - 1) + k - 1) * all * n;
    }
  }
  const kernels::Recurrence<T> layer{call.cell->kernels<T>(), steps,   x[2],      n,
                                     layout.directions * n,   c.in(X), directions};
  if (Observer* observer = Observer::current()) show(*observer, c, call, layer, gradients);
  layer.backward(gradients, c.grad(X));
}

// --- the specification ---

// y and the last states of one direction, step by step.
Tensors unroll(const CellSpec& cell, const Tensor& x, const Tensor& lengths,
               const CellInputs& parameters, bool reverse) {
  const Tensor p = parameters.input_projection(with_zero_padding(x, lengths));
  const Index steps = p.shape()[0], n = parameters.w_hh.size(1);
  const Tensor begun = active_rows(lengths, 0), zero = scalar(0, p.dtype());
  Tensors initial;
  for (int k = 0; k < cell.layout.states; ++k) {
    const Tensor& state = parameters.states[static_cast<std::size_t>(k)];
    initial.push_back(state.defined() ? state : zeros({p.size(1), n}, p.dtype()));
  }
  // Padding steps must not read padding values: 0 times NaN is NaN.
  Tensors states = initial;
  if (begun.defined())
    for (Tensor& state : states) state = where(begun, state, zero);
  Tensors y(static_cast<std::size_t>(steps));
  for (Index s = 0; s < steps; ++s) {
    const Index t = reverse ? steps - 1 - s : s;
    const StepScope step_scope(t);
    Tensors next = cell.step(select(p, 0, t), states, parameters);
    const Tensor active = active_rows(lengths, t);
    Tensor& out = y[static_cast<std::size_t>(t)];
    out = next[0];
    if (active.defined()) {
      out = where(active, next[0], zero);
      for (std::size_t i = 0; i < states.size(); ++i) next[i] = where(active, next[i], states[i]);
    }
    states = std::move(next);
  }
  if (begun.defined())
    for (std::size_t i = 0; i < states.size(); ++i) states[i] = where(begun, states[i], initial[i]);
  states.insert(states.begin(), stack(y));
  return states;
}

Tensors specification(std::span<const Tensor> in, const CellCall& call) {
  const Layout layout(call);
  Tensors all, outputs;
  for (int d = 0; d < layout.directions; ++d) {
    const Tensors of_direction =
        unroll(*call.cell, in[X], in[LENGTHS], inputs_of(in, layout, d), call.reverse != (d == 1));
    outputs.push_back(of_direction[0]);
    all.insert(all.end(), of_direction.begin() + 1, of_direction.end());
  }
  all.insert(all.begin(), outputs.size() == 1 ? outputs[0] : concat(outputs, -1));
  return all;
}

// --- the definition ---

// Of each cell: everything given, the least that can be, both directions, no rows.
std::vector<Samples<CellCall>::Item> samples_of(const CellCall& form) {
  const CellLayout& layout = form.cell->layout;
  const auto sample = [&](Index steps, Index rows, Index features, Index n, bool full, bool reverse,
                          bool both) {
    CellCall call = form;
    call.reverse = reverse;
    call.both = both;
    SampleInputs in{{normal({steps, rows, features}), full ? lengths({rows}, steps) : absent()}};
    for (int direction = 0; direction < 2; ++direction) {
      const auto add = [&](bool given, const Shape& shape) {
        in.inputs.push_back(given && (direction == 0 || call.both) ? normal(shape) : absent());
      };
      add(true, {layout.inputs * n, features});
      add(true, {layout.recurrent_blocks() * n, n});
      add(full, {layout.inputs * n});
      if (call.takes_recurrent_bias) add(full && layout.recurrent_bias >= 0, {n});
      if (call.takes_weights) add(layout.weights > 0, {layout.weights * n});
      for (int k = 0; k < layout.states; ++k) add(full, {rows, n});
    }
    return in.attr(call);
  };
  return {sample(3, 2, 2, 3, true, false, false), sample(4, 3, 1, 2, true, true, false),
          sample(2, 2, 2, 1, false, false, false), sample(3, 9, 2, 2, true, true, true),
          sample(2, 0, 2, 2, false, false, false)};
}

Definition<CellCall> definition(const char* name, std::span<const CellSpec* const> variants,
                                CellCall form, const std::vector<std::string>& names) {
  std::vector<Samples<CellCall>::Item> samples;
  for (const CellSpec* cell : variants) {
    form.cell = cell;
    for (const auto& sample : samples_of(form)) samples.push_back(sample);
  }
  std::vector<ArgumentName> all{"x", optional(integer("lengths"))};
  for (const std::string& argument : names) {
    const bool needed = std::ssize(all) < PARAMETERS + Index{B};
    all.push_back(needed ? ArgumentName(argument.c_str()) : optional(argument.c_str()));
  }
  return {
      .name = name,
      .arguments = all,
      .shape = [](const Arguments& in, const CellCall& call) -> Shapes { return shapes(in, call); },
      .forward = []<Real T>(Ctx<T> c, const CellCall& call) { forward(c, call); },
      .gradient = fused(
          []<Real T>(BackwardCtx<T> c, const CellCall& call) { backward(c, call); },
          [](std::span<const Tensor> in, const CellCall& call) { return specification(in, call); }),
      .samples = samples,
      .hidden_outputs = 2,
  };
}

// Throws unless each cell uses its sums as unit.h says.
std::span<const CellSpec* const> checked(std::span<const CellSpec* const> cells, Site site) {
  for (const CellSpec* cell : cells)
    if (const int sum = cell->misused_sum(); sum >= 0)
      throw ValueError(
          fmt::format("{}: sum {} has to go through one sigmoid or tanh; for any other use, or "
                      "several, write number(sum)",
                      cell->name, sum),
          site);
  return cells;
}

// The names of the parameters and states of both directions.
std::vector<std::string> names_of(const CellArguments& arguments) {
  std::vector<std::string> names;
  for (const char* suffix : {"", "_reverse"}) {
    for (const char* name : {"w_ih", "w_hh", "b", arguments.recurrent_bias, arguments.weights})
      if (name) names.push_back(fmt::format("{}{}", name, suffix));
    for (const char* state : arguments.states) names.push_back(fmt::format("{}{}", state, suffix));
  }
  return names;
}

}  // namespace

RecurrentOp::RecurrentOp(const char* name, std::span<const CellSpec* const> variants,
                         const CellArguments& arguments, Site site)
    : names_(names_of(arguments)),
      form_{nullptr, false, false, arguments.recurrent_bias != nullptr,
            arguments.weights != nullptr},
      op_(definition(name, checked(variants, site), form_, names_), site) {}

Tensors RecurrentOp::operator()(const CellSpec& cell, const Tensor& x,
                                std::span<const CellInputs> directions,
                                const SequenceOptions& options, Site site) const {
  const std::string_view name = op_.spec().name;
  if (in_segments(options, name.data(), site))
    return run_in_segments(cell, x, directions, options, site);
  const Tensor lengths = resolve_lengths(options, x, name.data(), site);
  const Tensor none;
  CellCall call = form_;
  call.cell = &cell;
  call.reverse = options.reverse;
  call.both = directions.size() == 2;
  const Layout layout(call);
  PoolVector<const Tensor*> inputs{&x, &lengths};
  for (const CellInputs& from : directions) {
    for (const Tensor* input : {&from.w_ih, &from.w_hh, &from.b}) inputs.push_back(input);
    if (call.takes_recurrent_bias) inputs.push_back(&from.recurrent_bias);
    if (call.takes_weights) inputs.push_back(&from.weights);
    for (int k = 0; k < cell.layout.states; ++k)
      inputs.push_back(&from.states[static_cast<std::size_t>(k)]);
  }
  inputs.resize(PARAMETERS + 2 * static_cast<std::size_t>(layout.count()), &none);
  return op_.all(inputs, call, site);
}

// Each direction runs over the segments in its own order.
Tensors RecurrentOp::run_in_segments(const CellSpec& cell, const Tensor& x,
                                     std::span<const CellInputs> directions,
                                     const SequenceOptions& options, Site site) const {
  Tensors results, outputs;
  for (std::size_t d = 0; d < directions.size(); ++d) {
    SequenceOptions of_direction = options;
    of_direction.reverse = options.reverse != (d == 1);
    CellInputs from = directions[d];
    Tensors parts;
    each_segment(x, of_direction, op_.spec().name.data(), site,
                 [&](const Tensor& part, const Segment& segment) {
                   const Tensors after =
                       run_segment(cell, part, from, segment, options.outputs, site);
                   if (options.outputs) parts.push_back(after[0]);
                   std::copy(after.end() - cell.layout.states, after.end(), from.states.begin());
                 });
    outputs.push_back(join_segments(std::move(parts), of_direction));
    results.insert(results.end(), from.states.begin(), from.states.begin() + cell.layout.states);
  }
  const bool both = directions.size() == 2 && options.outputs;
  results.insert(results.begin(), both ? concat(outputs, -1, site) : outputs[0]);
  return results;
}

// One segment, under a checkpoint, whose inputs are those that are given.
Tensors RecurrentOp::run_segment(const CellSpec& cell, const Tensor& part, const CellInputs& from,
                                 const Segment& segment, bool outputs, Site site) const {
  const auto parameters = [](CellInputs& inputs) {
    std::vector<Tensor*> all{&inputs.w_ih, &inputs.w_hh, &inputs.b, &inputs.recurrent_bias,
                             &inputs.weights};
    for (Tensor& state : inputs.states) all.push_back(&state);
    return all;
  };
  CellInputs form = from;
  Tensors inputs{part};
  for (Tensor* parameter : parameters(form))
    if (parameter->defined()) {
      inputs.push_back(*parameter);
      *parameter = scalar(0);  // that it is given
    }
  const auto run = [this, &cell, form, parameters, segment, outputs,
                    site](std::span<const Tensor> in) {
    CellInputs given = form;
    std::size_t next = 1;
    for (Tensor* parameter : parameters(given))
      if (parameter->defined()) *parameter = in[next++];
    Tensors results = (*this)(cell, segment.of(in[0]), {&given, 1}, segment.options, site);
    if (!outputs) results.erase(results.begin());
    return results;
  };
  return checkpoint(run, inputs, site);
}

}  // namespace reel::op

namespace reel {

Tensor CellInputs::input_projection(const Tensor& x) const {
  return b.defined() ? affine(x, w_ih, b) : matmul(x, w_ih, false, true);
}

namespace detail {

Tensors step_sums(const kernels::CellLayout& layout, const Tensor& p, const Tensor& h,
                  const CellInputs& parameters) {
  const Index n = parameters.w_hh.size(1);
  Tensors sums(static_cast<std::size_t>(layout.sums));
  const int count = layout.recurrent.count;
  Tensor u;
  if (count > 0) {
    const bool all = layout.second.count == 0;
    const Tensor w = all ? parameters.w_hh : slice(parameters.w_hh, 0, 0, count * n);
    u = matmul(h, w, false, true);
  }
  if (count == layout.sums && layout.inputs == layout.sums) return split(p + u, count, -1);
  const Tensors in = split(p, layout.inputs, -1);
  for (int gate = 0; gate < layout.inputs; ++gate)
    sums[static_cast<std::size_t>(layout.input[static_cast<std::size_t>(gate)])] =
        in[static_cast<std::size_t>(gate)];
  const Tensors recurrent = count > 0 ? split(u, count, -1) : Tensors{};
  for (int i = 0; i < count; ++i) {
    Tensor& sum = sums[static_cast<std::size_t>(layout.recurrent.begin + i)];
    const Tensor& term = recurrent[static_cast<std::size_t>(i)];
    sum = sum.defined() ? sum + term : term;
  }
  if (parameters.recurrent_bias.defined()) {
    Tensor& sum = sums[static_cast<std::size_t>(layout.recurrent_bias)];
    sum = sum + parameters.recurrent_bias;
  }
  return sums;
}

void add_second_product(const kernels::CellLayout& layout, const Tensor& operand,
                        const CellInputs& parameters, Tensors& sums) {
  const Index n = parameters.w_hh.size(1), begin = layout.recurrent.count * n;
  const Tensor w = slice(parameters.w_hh, 0, begin, begin + layout.second.count * n);
  const Tensors terms = split(matmul(operand, w, false, true), layout.second.count, -1);
  for (int i = 0; i < layout.second.count; ++i) {
    Tensor& sum = sums[static_cast<std::size_t>(layout.second.begin + i)];
    sum = sum + terms[static_cast<std::size_t>(i)];
  }
}

}  // namespace detail

}  // namespace reel
