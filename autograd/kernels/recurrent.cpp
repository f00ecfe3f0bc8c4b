#include <reel/autograd/kernels/recurrent.h>

#include <algorithm>
#include <optional>
#include <span>

#include <reel/autograd/kernels/token_rows.h>

// The forward pass; the other one is in recurrent_backward.cpp.
namespace reel::kernels {
namespace {

// The forward pass of one direction.
template <Real T>
struct ForwardPass {
  const Recurrence<T>& layer;
  const Direction<T>& from;
  const DirectionResults<T>& to;
  Masks<T> masks;
  PackedCell<T> cell;
  std::array<T*, max_states> states = {};  // [B, H], in the order of the steps
  T* operands = nullptr;                   // [B, H]
  T* biases = nullptr;                     // [sums, H]
  T* kept = nullptr;                       // of each token, or if nothing is kept of each row
  bool by_token = false;

  ForwardPass(const Recurrence<T>& of, std::span<const DirectionResults<T>> all, std::size_t way)
      : layer(of),
        from(of.directions[way]),
        to(all[way]),
        masks(of.options, of.steps.rows(), of.sizes.units, way),
        cell(of.cell, of.sizes, from, of.options, masks) {}

  T* kept_of(Index token, Index r) const {
    return kept + (by_token ? token : r) * cell.kept().width;
  }

  void input_part(const T* x) const {
    const CellLayout& layout = layer.cell.layout;
    const Index n = layer.sizes.units, tokens = layer.steps.tokens();
    sum_biases(layout, n, from.b, from.recurrent_bias, biases);
    if (!layout.norm)
      return input_sums(layout, n, x, tokens, layer.sizes.features, from.w_ih, biases, to.sums);
    const Index width = cell.kept().width;
    T* products = kept + cell.kept().input;
    const auto w = MatrixView<T>::row_major(from.w_ih, layout.inputs * n, layer.sizes.features);
    matmul(MatrixView<T>::row_major(x, tokens, layer.sizes.features), w.transposed(), products,
           width, Write::assign);
    normalized_input_sums(layout, n, tokens, products, kept + cell.kept().deviations, width,
                          from.numbers + layout.input_norm() * n, biases, to.sums);
  }

  // Takes rows from begin to end through all steps.
  void run(Index begin, Index end) const {
    const Steps& steps = layer.steps;
    const Index n = layer.sizes.units, width = layer.cell.layout.sums * n;
    StepRows<T> rows{.steps = &steps, .begin = begin, .operands = operands + begin * n};
    for (std::size_t k = 0; k < static_cast<std::size_t>(layer.cell.layout.states); ++k)
      rows.states[k] = states[k] + begin * layer.sizes.state(k);
    T* const h = rows.states[0];
    rows.h = h;
    for (Index s = 0; s < steps.count(); ++s) {
      rows.t = steps.time(s, from.reverse);
      rows.count = std::min(end, steps.active(rows.t)) - begin;
      if (rows.count <= 0) continue;
      const Index token = steps.first(rows.t) + begin;
      rows.sums = to.sums + token * width;
      rows.kept = kept_of(token, begin);
      if (!layer.cell.layout.norm)  // here, not for all steps at once, as they are in the cache now
        fill_biases(layer.cell.layout, n, rows.count, biases, rows.sums);
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

}  // namespace

template <Real T>
void Recurrence<T>::forward(std::span<const DirectionResults<T>> results) const {
  const CellLayout& layout = cell.layout;
  const Index n = sizes.units, ways = std::ssize(directions), rows = steps.rows();
  const Tokens<T> tokens(steps, x, sizes.features);
  const SortedStates<T> sorted(steps, layout, sizes, directions.size());
  const bool keep_all = results[0].kept || layout.norm;
  const Index kept_size = KeptNumbers(layout, sizes).width * (keep_all ? steps.tokens() : rows);
  const Scratch<T> biases(ways * layout.sums * n), operands(ways * rows * n),
      own_kept(results[0].kept ? 0 : ways * kept_size);
  std::array<std::optional<ForwardPass<T>>, 2> passes;
  for (std::size_t way = 0; way < directions.size(); ++way) {
    ForwardPass<T>& pass = passes[way].emplace(*this, results, way);
    const Index w = static_cast<Index>(way);
    sorted.load(way, directions[way].initial);
    for (std::size_t k = 0; k < static_cast<std::size_t>(layout.states); ++k)
      pass.states[k] = sorted(way, k);
    pass.operands = operands.data() + w * rows * n;
    pass.kept = results[way].kept ? results[way].kept : own_kept.data() + w * kept_size;
    pass.by_token = keep_all;
    pass.biases = biases.data() + w * layout.sums * n;
    pass.input_part(tokens.data());
  }
  each_row_block(steps, directions.size(),
                 [&](std::size_t way, Index begin, Index end) { passes[way]->run(begin, end); });
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
