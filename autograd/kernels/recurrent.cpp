#include <reel/autograd/kernels/recurrent.h>

#include <algorithm>
#include <optional>
#include <span>

#include <reel/autograd/kernels/token_rows.h>

// The forward pass; the other one is in recurrent_backward.cpp.
namespace reel::kernels {
namespace {

// The forward pass of one direction. Many steps at once get their sums from the input.
template <Real T>
struct ForwardPass {
  const Recurrence<T>& layer;
  const Direction<T>& from;
  const DirectionResults<T>& to;
  Masks<T> masks;
  PackedInput<T> input;
  PackedCell<T> cell;
  std::array<T*, max_states> states = {};  // [B, H], in the order of the steps
  T* operands = nullptr;                   // [B, H]
  // From the first token of the steps at once on.
  T *sums = nullptr, *kept = nullptr;
  Index first = 0;

  ForwardPass(const Recurrence<T>& of, std::span<const DirectionResults<T>> all, std::size_t way)
      : layer(of),
        from(of.directions[way]),
        to(all[way]),
        masks(of.options, of.steps.rows(), of.sizes.units, way),
        input(of.cell.layout, of.sizes, from),
        cell(of.cell, of.sizes, from, of.options, masks) {}

  Index width() const { return layer.cell.layout.sums * layer.sizes.units; }

  // The input's part of the sums of steps from begin to end. They have the places of their tokens
  // in the results, or, where these are not kept, the own ones.
  void add_input(const T* x, Index begin, Index end, T* own_sums, T* own_kept) {
    const Steps& steps = layer.steps;
    const Index t = from.reverse ? steps.count() - end : begin;
    first = steps.first(t);
    sums = to.sums ? to.sums + first * width() : own_sums;
    kept = to.kept ? to.kept + first * cell.kept().width : own_kept;
    input(x + first * layer.sizes.features, steps.first(t + end - begin) - first, sums, kept);
  }

  // Takes rows from begin to end through steps from first_step to last_step.
  void run(Index begin, Index end, Index first_step, Index last_step) const {
    const Steps& steps = layer.steps;
    const Index n = layer.sizes.units;
    StepRows<T> rows{.steps = &steps, .begin = begin, .operands = operands + begin * n};
    for (std::size_t k = 0; k < static_cast<std::size_t>(layer.cell.layout.states); ++k)
      rows.states[k] = states[k] + begin * layer.sizes.state(k);
    T* const h = rows.states[0];
    rows.h = h;
    for (Index s = first_step; s < last_step; ++s) {
      rows.t = steps.time(s, from.reverse);
      rows.count = std::min(end, steps.active(rows.t)) - begin;
      if (rows.count <= 0) continue;
      const Index token = steps.first(rows.t) + begin - first;
      rows.sums = sums + token * width();
      rows.kept = kept + token * cell.kept().width;
      if (h_is_in_y()) rows.states[0] = y_of(rows, 0);
      cell.step(rows);
      rows.h = rows.states[0];
      for (Index i = 0; i < rows.count; ++i) keep(rows, i);
    }
    if (rows.h != h) std::copy_n(rows.h, (end - begin) * layer.sizes.output, h);
  }

  // Whether the rows of a step are consecutive in y, so that h needs no other place.
  bool h_is_in_y() const { return layer.steps.uniform() && layer.y_stride == layer.sizes.output; }
  T* y_of(const StepRows<T>& rows, Index i) const {
    return to.y + layer.steps.place(rows.t, rows.begin + i) * layer.y_stride;
  }

  void keep(const StepRows<T>& rows, Index i) const {
    const CellSizes& sizes = layer.sizes;
    if (!h_is_in_y()) std::copy_n(rows.states[0] + i * sizes.output, sizes.output, y_of(rows, i));
    const auto count = static_cast<std::size_t>(to.kept ? layer.cell.layout.states : 0);
    T* next = rows.kept + i * cell.kept().width;
    for (std::size_t k = 1; k < count; ++k)
      next = std::copy_n(rows.states[k] + i * sizes.units, sizes.units, next);
  }
};

// So many that the fork and join of their product costs nothing, and so few that a sequence of any
// length takes only so much memory where nothing is kept for a backward pass. One thread does not
// fork: there sums that are not kept stay in the second-level cache.
Index steps_at_once(Index sums_of_step, bool kept) {
  const Index sums = kept || usable_threads() > 1 ? 1 << 22 : 1 << 16;
  return std::max<Index>(1, sums / std::max<Index>(1, sums_of_step));
}

}  // namespace

template <Real T>
void Recurrence<T>::forward(std::span<const DirectionResults<T>> results) const {
  const CellLayout& layout = cell.layout;
  const Index n = sizes.units, ways = std::ssize(directions), rows = steps.rows();
  const Tokens<T> tokens(steps, x, sizes.features);
  const SortedStates<T> sorted(steps, layout, sizes, directions.size());
  const Index at_once = steps_at_once(rows * layout.sums * n, results[0].sums != nullptr);
  const Index own = results[0].sums ? 0 : std::min(at_once, steps.count()) * rows;
  const Index own_sums = own * layout.sums * n, own_kept = own * KeptNumbers(layout, sizes).width;
  const Scratch<T> operands(ways * rows * n), all_sums(ways * own_sums), all_kept(ways * own_kept);
  std::array<std::optional<ForwardPass<T>>, 2> passes;
  for (std::size_t way = 0; way < directions.size(); ++way) {
    ForwardPass<T>& pass = passes[way].emplace(*this, results, way);
    sorted.load(way, directions[way].initial);
    for (std::size_t k = 0; k < static_cast<std::size_t>(layout.states); ++k)
      pass.states[k] = sorted(way, k);
    pass.operands = operands.data() + static_cast<Index>(way) * rows * n;
  }
  for (Index s = 0; s < steps.count(); s += at_once) {
    const Index end = std::min(s + at_once, steps.count());
    for (Index way = 0; way < ways; ++way)
      passes[static_cast<std::size_t>(way)]->add_input(tokens.data(), s, end,
                                                       all_sums.data() + way * own_sums,
                                                       all_kept.data() + way * own_kept);
    each_row_block(steps, directions.size(), [&](std::size_t way, Index begin, Index end_row) {
      passes[way]->run(begin, end_row, s, end);
    });
  }
  for (std::size_t way = 0; way < directions.size(); ++way) {
    sorted.store(way, results[way].last);
    each_padding(steps, [&](Index place) {
      std::fill_n(results[way].y + place * y_stride, sizes.output, T(0));
    });
  }
}

template void Recurrence<float>::forward(std::span<const DirectionResults<float>>) const;
template void Recurrence<double>::forward(std::span<const DirectionResults<double>>) const;

}  // namespace reel::kernels
