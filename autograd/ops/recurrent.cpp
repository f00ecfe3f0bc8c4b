#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include <reel/autograd/cell.h>
#include <reel/autograd/checkpoint.h>
#include <reel/autograd/engine/scope.h>
#include <reel/autograd/engine/segments.h>
#include <reel/autograd/kernels/recurrent.h>
#include <reel/autograd/observer.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/recurrent_samples.h>

// The op that runs a recurrent cell over a sequence. Its inputs are x, the lengths, and then for
// each direction the parameters and the states; its outputs y, for each direction the last states,
// and hidden for the backward pass
//   sums  [D T, B, S H]  of each direction: the pre-activations, as a cell's functions keep them
//   kept  [D T, B, K]    the states after h at all steps, and more: see kernels::KeptNumbers
// of which only the tokens, numbered without padding, are used. In the backward pass the gradients
// of the sums take their place.
namespace reel::op {
namespace {

using kernels::CellLayout;

enum Input { X, LENGTHS, PARAMETERS };

// The inputs of a direction, of which an op leaves out those that none of its cells has.
enum Parameter { W_IH, W_HH, B, RECURRENT_BIAS, NUMBERS, PROJECTION, STATES };

bool is_taken(const OptionalParameters& takes, int parameter) {
  switch (parameter) {
    case W_HH:
      return takes.w_hh;
    case RECURRENT_BIAS:
      return takes.recurrent_bias;
    case NUMBERS:
      return takes.numbers;
    case PROJECTION:
      return takes.projection;
    default:
      return true;
  }
}

struct Layout {
  const CellLayout& cell;
  const OptionalParameters& takes;
  int directions;

  explicit Layout(const CellCall& call)
      : cell(call.cell->layout), takes(*call.takes), directions(call.both ? 2 : 1) {}

  int count() const { return place(STATES) + cell.states; }
  // An input of a direction; -1 if the op does not take it.
  int input(int direction, int parameter) const {
    if (!is_taken(takes, parameter)) return -1;
    return PARAMETERS + direction * count() + place(parameter);
  }
  int last_state(int direction, int k) const { return 1 + direction * cell.states + k; }
  int sums() const { return last_state(directions, 0); }
  int kept() const { return sums() + 1; }
  // The place of a parameter among the inputs of a direction.
  int place(int parameter) const {
    int before = parameter;
    for (int p = W_IH; p < std::min<int>(parameter, STATES); ++p) before -= !is_taken(takes, p);
    return before;
  }
  // The sizes, from the shape of each input, or null.
  template <class ShapeOf>
  kernels::CellSizes sizes(ShapeOf shape) const {
    const auto of = [&](int parameter) -> const Shape* {
      const int i = input(0, parameter);
      return i < 0 ? nullptr : shape(i);
    };
    const Shape *w_ih = of(W_IH), *w_hh = of(W_HH), *projection = of(PROJECTION);
    const Index output = w_hh ? (*w_hh)[1] : (*w_ih)[0] / cell.inputs;
    return {(*shape(X))[2], projection ? (*projection)[1] : output, output};
  }
};

// --- the shape rule ---

// Whether the condition holds; the message is built only on failure, as this runs in every call.
template <class Message>
void require(const Arguments& in, bool fits, Message message) {
  if (!fits) in.fail(message());
}

void check_direction(const Arguments& in, const Layout& layout, int direction,
                     const kernels::CellSizes& sizes) {
  const CellLayout& cell = layout.cell;
  const Index rows = in[X][1], n = sizes.units, gates = cell.inputs * n;
  const auto at = [&](int parameter) { return layout.input(direction, parameter); };
  const auto has = [&](int parameter) { return at(parameter) >= 0 && in.has(at(parameter)); };
  const auto check = [&](int parameter, bool exists, const Shape& shape, std::string_view note) {
    if (!has(parameter)) return;
    require(in, exists, [&] { return fmt::format("this cell has no {}", in.name(at(parameter))); });
    require(in, in[at(parameter)] == shape, [&] {
      return fmt::format("{} must be {}{}", in.name(at(parameter)), shape.str(), note);
    });
  };
  if (cell.recurrent_blocks() > 0)
    require(in, has(W_HH) && in[at(W_HH)] == Shape{cell.recurrent_blocks() * n, sizes.output},
            [&] { return fmt::format("w_hh must be [{} H, H]", cell.recurrent_blocks()); });
  check(W_HH, cell.recurrent_blocks() > 0, {cell.recurrent_blocks() * n, sizes.output}, "");
  require(in, in[at(W_IH)].rank() == 2 && in[at(W_IH)][0] == gates,
          [&] { return fmt::format("w_ih must be [{}, D] for this w_hh", gates); });
  require(in, in[at(W_IH)][1] == sizes.features, [&] {
    return fmt::format("x has {} features, but the layer takes {}", sizes.features,
                       in[at(W_IH)][1]);
  });
  check(B, true, {gates}, "");
  check(RECURRENT_BIAS, cell.recurrent_bias >= 0, {n}, "");
  check(NUMBERS, cell.numbers() > 0, {cell.numbers() * n}, "");
  require(in, cell.numbers() == 0 || has(NUMBERS), [&] {
    return fmt::format("this cell has {} numbers per unit beside its products", cell.numbers());
  });
  require(in, has(PROJECTION) == sizes.projected(),
          [&] { return fmt::format("a projection must be [P, {}] with P below {}", n, n); });
  check(PROJECTION, cell.projects, {sizes.output, n}, "");
  for (int k = 0; k < cell.states; ++k)
    check(STATES + k, true, {rows, sizes.state(static_cast<std::size_t>(k))}, " for this x");
}

Shapes shapes(const Arguments& in, const CellCall& call) {
  const Layout layout(call);
  require(in, in[X].rank() == 3, [] { return "x must be [T, B, D]: steps, batch, features"; });
  for (int parameter : {W_IH, W_HH, PROJECTION}) {
    const int i = layout.input(0, parameter);
    require(in, i < 0 || !in.has(i) || in[i].rank() == 2, [&] {
      return parameter == W_HH
                 ? fmt::format("w_hh must be [{} H, H]", layout.cell.recurrent_blocks())
                 : fmt::format("{} must be a matrix", in.name(i));
    });
  }
  const kernels::CellSizes sizes =
      layout.sizes([&](int i) { return in.has(i) ? &in[i] : nullptr; });
  const Index steps = in[X][0], rows = in[X][1], n = sizes.units;
  require(in, steps > 0, [] { return "the sequence has no steps"; });
  require(in, !in.has(LENGTHS) || in[LENGTHS] == Shape{rows},
          [&] { return fmt::format("lengths must be [{}] for this x", rows); });
  for (int d = 0; d < layout.directions; ++d) check_direction(in, layout, d, sizes);
  Shapes result(Shape{steps, rows, layout.directions * sizes.output});
  for (int k = 0; k < layout.directions * layout.cell.states; ++k)
    result.add(Shape{rows, sizes.state(static_cast<std::size_t>(k % layout.cell.states))});
  const Index of_steps = layout.directions * steps;
  result.add(Shape{of_steps, rows, layout.cell.sums * n});
  result.add(Shape{of_steps, rows, kernels::KeptNumbers(layout.cell, sizes).width});
  return result;
}

CellInputs inputs_of(std::span<const Tensor> in, const Layout& layout, int direction) {
  const auto at = [&](int parameter) {
    const int i = layout.input(direction, parameter);
    return i < 0 ? Tensor() : in[static_cast<std::size_t>(i)];
  };
  CellInputs inputs{at(W_IH), at(W_HH), at(B), at(RECURRENT_BIAS), at(NUMBERS), at(PROJECTION), {}};
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
      const int i = layout.input(d, parameter);
      return i < 0 ? nullptr : in(i);
    };
    auto& to = directions.emplace_back(kernels::Direction<T>{call.reverse != (d == 1),
                                                             at(W_IH),
                                                             at(W_HH),
                                                             at(B),
                                                             at(RECURRENT_BIAS),
                                                             at(NUMBERS),
                                                             at(PROJECTION),
                                                             {}});
    for (int k = 0; k < layout.cell.states; ++k)
      to.initial[static_cast<std::size_t>(k)] = at(STATES + k);
  }
  return directions;
}

// The layer of a call; C is the context of a pass.
template <class C>
kernels::CellSizes sizes_of(const C& c, const Layout& layout) {
  return layout.sizes([&](int i) { return c.has(i) ? &c.shape(i) : nullptr; });
}

template <Real T>
void forward(Ctx<T> c, const CellCall& call) {
  const Layout layout(call);
  const kernels::CellSizes sizes = sizes_of(c, layout);
  const Index steps_count = c.shape(X)[0], rows = c.shape(X)[1], all = steps_count * rows;
  const Index width = layout.cell.sums * sizes.units;
  const kernels::Steps steps(steps_count, rows,
                             c.has(LENGTHS) ? c.indices(LENGTHS).data() : nullptr);
  const auto directions =
      directions_of<T>(layout, call, [&](int i) { return c.has(i) ? c.in(i).data() : nullptr; });
  PoolVector<kernels::DirectionResults<T>> results;
  for (int d = 0; d < layout.directions; ++d) {
    auto& to = results.emplace_back();
    to.y = c.out().data() + d * sizes.output;
    to.sums = c.recording() ? c.out(layout.sums()).data() + d * all * width : nullptr;
    to.kept = c.recording() ? c.out(layout.kept()).data() +
                                  d * all * kernels::KeptNumbers(layout.cell, sizes).width
                            : nullptr;
    for (int k = 0; k < layout.cell.states; ++k)
      to.last[static_cast<std::size_t>(k)] = c.out(layout.last_state(d, k)).data();
  }
  const kernels::Recurrence<T> layer{
      call.cell->kernels<T>(), steps,      sizes,       layout.directions * sizes.output,
      c.in(X).data(),          directions, call.options};
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
  const kernels::CellSizes sizes = sizes_of(c, layout);
  const Index steps_count = c.shape(X)[0], rows = c.shape(X)[1], all = steps_count * rows;
  const Index width = layout.cell.sums * sizes.units;
  const kernels::Steps steps(steps_count, rows, c.has(LENGTHS) ? c.indices(LENGTHS) : nullptr);
  const auto directions = directions_of<T>(layout, call, [&](int i) { return c.in(i); });
  // The gradients overwrite the sums, unless the tape is kept.
  T* const reusable = c.reusable(layout.sums());
  const Scratch<T> own(reusable ? 0 : layout.directions * all * width);
  if (!reusable) std::copy_n(c.out(layout.sums()), layout.directions * all * width, own.data());
  PoolVector<kernels::DirectionGradients<T>> gradients;
  for (int d = 0; d < layout.directions; ++d) {
    const auto grad = [&](int parameter) -> T* {
      const int i = layout.input(d, parameter);
      return i < 0 ? nullptr : c.grad(i);
    };
    auto& to = gradients.emplace_back();
    to.y = c.out() + d * sizes.output;
    to.dy = c.g() ? c.g() + d * sizes.output : nullptr;
    to.sums = (reusable ? reusable : own.data()) + d * all * width;
    to.kept = c.out(layout.kept()) + d * all * kernels::KeptNumbers(layout.cell, sizes).width;
    to.dw_ih = grad(W_IH);
    to.dw_hh = grad(W_HH);
    to.db = grad(B);
    to.d_recurrent_bias = grad(RECURRENT_BIAS);
    to.d_numbers = grad(NUMBERS);
    to.d_projection = grad(PROJECTION);
    for (int k = 0; k < layout.cell.states; ++k) {
      const auto state = static_cast<std::size_t>(k);
      to.d_last[state] = c.g(layout.last_state(d, k));
      to.d_initial[state] = grad(STATES + k);
    }
  }
  const kernels::Recurrence<T> layer{call.cell->kernels<T>(),
                                     steps,
                                     sizes,
                                     layout.directions * sizes.output,
                                     c.in(X),
                                     directions,
                                     call.options};
  if (Observer* observer = Observer::current()) show(*observer, c, call, layer, gradients);
  layer.backward(gradients, c.grad(X));
}

// --- the specification ---

// y and the last states of one direction, step by step.
Tensors unroll(const CellCall& call, const Tensor& x, const Tensor& lengths,
               const CellInputs& parameters, int direction) {
  const CellSpec& cell = *call.cell;
  const bool reverse = call.reverse != (direction == 1);
  const Tensor p = parameters.input_part(cell.layout, with_zero_padding(x, lengths));
  const kernels::CellSizes sizes = parameters.sizes(cell.layout);
  const Index steps = p.shape()[0];
  const Tensor begun = active_rows(lengths, 0), zero = scalar(0, p.dtype());
  Tensors initial;
  for (int k = 0; k < cell.layout.states; ++k) {
    const Tensor& state = parameters.states[static_cast<std::size_t>(k)];
    const Shape shape{p.size(1), sizes.state(static_cast<std::size_t>(k))};
    initial.push_back(state.defined() ? state : zeros(shape, p.dtype()));
  }
  // Padding steps must not read padding values: 0 times NaN is NaN.
  Tensors states = initial;
  if (begun.defined())
    for (Tensor& state : states) state = where(begun, state, zero);
  Tensors y(static_cast<std::size_t>(steps));
  for (Index s = 0; s < steps; ++s) {
    const Index t = reverse ? steps - 1 - s : s;
    const StepScope step_scope(t);
    Tensors next =
        states_after(cell, select(p, 0, t), states, parameters, {call.options, t, direction});
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
    const Tensors of_direction = unroll(call, in[X], in[LENGTHS], inputs_of(in, layout, d), d);
    outputs.push_back(of_direction[0]);
    all.insert(all.end(), of_direction.begin() + 1, of_direction.end());
  }
  all.insert(all.begin(), outputs.size() == 1 ? outputs[0] : concat(outputs, -1));
  return all;
}

// --- the definition ---

Definition<CellCall> definition(const char* name, std::span<const CellSpec* const> variants,
                                const OptionalParameters& takes,
                                const std::vector<std::string>& names) {
  std::vector<Samples<CellCall>::Item> samples;
  for (const CellSpec* cell : variants)
    for (const auto& sample : samples_of(*cell, takes, cell == variants.front()))
      samples.push_back(sample);
  std::vector<ArgumentName> all{"x", optional(integer("lengths"))};
  // Needed is what all cells have, in the first direction.
  std::vector<bool> needed;
  for (const int parameter : {W_IH, W_HH, B, RECURRENT_BIAS, NUMBERS, PROJECTION})
    if (is_taken(takes, parameter))
      needed.push_back(parameter == W_IH || parameter == W_HH ||
                       (parameter == NUMBERS && std::ranges::all_of(variants, [](auto* cell) {
                          return cell->layout.numbers() > 0;
                        })));
  for (std::size_t i = 0; i < names.size(); ++i) {
    const ArgumentName argument(names[i].c_str());
    all.push_back(i < needed.size() && needed[i] ? argument : optional(argument));
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

OptionalParameters taken_by(std::span<const CellSpec* const> cells) {
  OptionalParameters takes;
  for (const CellSpec* cell : cells) {
    takes.w_hh |= cell->layout.recurrent_blocks() > 0;
    takes.recurrent_bias |= cell->layout.recurrent_bias >= 0;
    takes.numbers |= cell->layout.numbers() > 0;
    takes.projection |= cell->layout.projects;
  }
  return takes;
}

// The names of the parameters and states of both directions.
std::vector<std::string> names_of(const CellArguments& arguments, const OptionalParameters& takes) {
  const std::array all{"w_ih", "w_hh", "b", arguments.recurrent_bias, "numbers", "projection"};
  std::vector<std::string> names;
  for (const char* suffix : {"", "_reverse"}) {
    for (std::size_t p = 0; p < all.size(); ++p)
      if (is_taken(takes, static_cast<int>(p)))
        names.push_back(fmt::format("{}{}", all[p], suffix));
    for (const char* state : arguments.states) names.push_back(fmt::format("{}{}", state, suffix));
  }
  return names;
}

}  // namespace

RecurrentOp::RecurrentOp(const char* name, std::span<const CellSpec* const> variants,
                         const CellArguments& arguments, Site site)
    : takes_(taken_by(variants)),
      names_(names_of(arguments, takes_)),
      op_(definition(name, checked(variants, site), takes_, names_), site) {}

Tensors RecurrentOp::operator()(const CellSpec& cell, const Tensor& x,
                                std::span<const CellInputs> directions,
                                const SequenceOptions& options, const kernels::StepOptions& step,
                                Site site) const {
  const std::string_view name = op_.spec().name;
  if (in_segments(options, name.data(), site))
    return run_in_segments(cell, x, directions, options, step, site);
  const Tensor lengths = resolve_lengths(options, x, name.data(), site);
  const Tensor none;
  const CellCall call{&cell, options.reverse, directions.size() == 2, step, &takes_};
  const Layout layout(call);
  PoolVector<const Tensor*> inputs{&x, &lengths};
  for (const CellInputs& from : directions) {
    const auto parameters = from.parameters();
    for (std::size_t p = 0; p < parameters.size(); ++p)
      if (is_taken(takes_, static_cast<int>(p))) inputs.push_back(parameters[p]);
    for (int k = 0; k < cell.layout.states; ++k)
      inputs.push_back(&from.states[static_cast<std::size_t>(k)]);
  }
  inputs.resize(PARAMETERS + 2 * static_cast<std::size_t>(layout.count()), &none);
  return op_.all(inputs, call, site);
}

// Each direction runs over the segments in its own order.
Tensors RecurrentOp::run_in_segments(const CellSpec& cell, const Tensor& x,
                                     std::span<const CellInputs> directions,
                                     const SequenceOptions& options,
                                     const kernels::StepOptions& step, Site site) const {
  Tensors results, outputs;
  for (std::size_t d = 0; d < directions.size(); ++d) {
    SequenceOptions of_direction = options;
    of_direction.reverse = options.reverse != (d == 1);
    CellInputs from = directions[d];
    Tensors parts;
    each_segment(x, of_direction, op_.spec().name.data(), site,
                 [&](const Tensor& part, const Segment& segment) {
                   kernels::StepOptions of_segment = step;
                   of_segment.first_step += segment.first;
                   of_segment.first_direction += static_cast<int>(d);
                   const Tensors after =
                       run_segment(cell, part, from, segment, options.outputs, of_segment, site);
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
                                 const Segment& segment, bool outputs,
                                 const kernels::StepOptions& step, Site site) const {
  CellInputs form = from;
  Tensors inputs{part};
  form.map([&](Tensor& given) {
    inputs.push_back(given);
    given = scalar(0);  // that it is there
  });
  const auto run = [this, &cell, form, segment, outputs, step, site](std::span<const Tensor> in) {
    CellInputs given = form;
    std::size_t next = 1;
    given.map([&](Tensor& input) { input = in[next++]; });
    Tensors results = (*this)(cell, segment.of(in[0]), {&given, 1}, segment.options, step, site);
    if (!outputs) results.erase(results.begin());
    return results;
  };
  return checkpoint(run, inputs, site);
}

}  // namespace reel::op
