#include <reel/autograd/kernels/recurrent.h>

#include <algorithm>
#include <optional>
#include <span>

#include <reel/autograd/kernels/prefetch.h>
#include <reel/autograd/kernels/row_norm.h>
#include <reel/autograd/kernels/token_rows.h>

namespace reel::kernels {
namespace {

// What the rows of a pass need beside the tensors; an array is empty unless the cell needs it.
template <Real T>
struct BackwardArrays {
  Scratch<T> d_operands, operands;   // [B, H], [tokens, H] of the second product
  Scratch<T> parts;                  // [B, sums, H]
  Scratch<T> d_weights;              // [B, weights, H], of the last few steps,
  Scratch<double> d_weights_before;  // and of those before them
  Scratch<T> d_products;             // [tokens, recurrent, H] of the normalised product
  Scratch<T> d_unit_h, d_h;          // [B, H], [tokens, P] of the projection
  Scratch<T> shares;                 // [states, B, H] of gradients, which zoneout hands on
  Scratch<T> masked;                 // [B, P]: gradients of h before its mask

  BackwardArrays(const CellLayout& layout, const CellSizes& sizes, const Steps& steps,
                 const Masks<T>& masks)
      : BackwardArrays(layout, sizes, steps.rows() * sizes.units, steps.tokens() * sizes.units,
                       layout.second.count > 0, masks) {
    std::fill_n(d_weights.data(), steps.rows() * layout.weights * sizes.units, T(0));
    std::fill_n(d_weights_before.data(), steps.rows() * layout.weights * sizes.units, 0.0);
  }

 private:
  BackwardArrays(const CellLayout& layout, const CellSizes& sizes, Index of_rows, Index of_tokens,
                 bool second, const Masks<T>& masks)
      : d_operands(second ? of_rows : 0),
        operands(second ? of_tokens : 0),
        parts(second ? layout.sums * of_rows : 0),
        d_weights(layout.weights * of_rows),
        d_weights_before(layout.weights * of_rows),
        d_products(layout.norm ? layout.recurrent.count * of_tokens : 0),
        d_unit_h(sizes.projected() ? of_rows : 0),
        d_h(sizes.projected() ? of_tokens : 0),
        shares(masks.zoneout() ? layout.states * of_rows : 0),
        masked(masks.has(Mask::hidden) ? of_rows : 0) {}
};

// The backward pass of one direction.
template <Real T>
struct BackwardPass {
  static constexpr Index few_steps = 32;

  const Recurrence<T>& layer;
  const Direction<T>& from;
  const DirectionGradients<T>& to;
  const CellLayout& layout;
  const CellSizes& sizes;
  const Steps& steps;
  Index n, width;  // H, and that of a token's sums
  KeptNumbers kept;
  Masks<T> masks;
  BackwardArrays<T> arrays;
  PackedMatrix<T> w_first, w_second, w_projection;
  PoolVector<PackedMatrix<T>> w_read;
  std::array<const T*, max_states> initial = {};  // [B, H], in the order of the steps
  std::array<T*, max_states> gradients = {};      // of the states, likewise

  BackwardPass(const Recurrence<T>& of, std::span<const DirectionGradients<T>> all, std::size_t way)
      : layer(of),
        from(of.directions[way]),
        to(all[way]),
        layout(of.cell.layout),
        sizes(of.sizes),
        steps(of.steps),
        n(sizes.units),
        width(layout.sums * n),
        kept(layout, sizes),
        masks(of.options, steps.rows(), n, way),
        arrays(layout, sizes, steps, masks),
        w_first(blocks(0, layout.recurrent.count)),
        w_second(blocks(layout.recurrent.count, layout.second_blocks())),
        w_projection(
            MatrixView<T>::row_major(from.projection, sizes.projected() ? sizes.output : 0, n)) {
    for (int i = 0; i < layout.read.count; ++i)
      w_read.emplace_back(blocks(layout.read_block(i), layout.read_by.count));
  }

  MatrixView<T> blocks(Index begin, Index count) const {
    return MatrixView<T>::row_major(from.w_hh + begin * n * sizes.output, count * n, sizes.output);
  }

  // --- the steps ---

  // Takes rows from begin to end through all steps; leaves the gradients of the sums in their
  // place, and those of the initial states in `gradients`.
  void run(Index begin, Index end) const {
    const CellConstants<T> constants(layout, n, layer.options, masks);
    const Scratch<T> mask(n);
    for (Index s = steps.count() - 1; s >= 0; --s) {
      const Index t = steps.time(s, from.reverse);
      const Index last = std::min(end, steps.active(t));
      if (last <= begin) continue;
      if (to.d_h_squares) observe(t, begin, last);
      if (masks.zoneout()) hand_on(t, begin, last, mask.data());
      if (sizes.projected()) unproject(t, begin, last);
      for (Index r = begin; r < last; ++r) {
        if (s > 0) prefetch_row(steps.time(s - 1, from.reverse), r);
        layer.cell.unit_gradient(row_at(t, r, constants));
      }
      if (sizes.projected())  // no unit reads the projected h
        std::fill_n(gradients[0] + begin * sizes.output, (last - begin) * sizes.output, T(0));
      if (layout.second.count > 0) second(t, begin, last, constants);
      if (layout.recurrent.count > 0) recurrent(t, begin, last, mask.data());
      for (std::size_t i = 0; i < w_read.size(); ++i)
        step_product(sums(t, begin, last, layout.read_by), w_read[i],
                     gradients[read_state(i)] + begin * n, n, Write::add);
      if (masks.zoneout()) add_shares(begin, last);
      if (s % few_steps == 0) move_weight_gradients(begin, end);
    }
    move_weight_gradients(begin, end);
  }

  // |dL/dh|² of rows after step t; in double, as the square of a vanishing f32 would underflow.
  void observe(Index t, Index begin, Index end) const {
    for (Index r = begin; r < end; ++r) {
      const T* g = gradients[0] + r * sizes.output;
      const T* dy = to.dy ? to.dy + steps.place(t, r) * layer.y_stride : nullptr;
      to.d_h_squares[steps.first(t) + r] = sum_of<double>(sizes.output, [&](Index j) {
        const double d = static_cast<double>(g[j]) + (dy ? static_cast<double>(dy[j]) : 0.0);
        return d * d;
      });
    }
  }

  // Sums of rows in step t.
  MatrixView<T> sums(Index t, Index begin, Index end, CellLayout::Range range) const {
    return MatrixView<T>::row_major(to.sums + (steps.first(t) + begin) * width + range.begin * n,
                                    end - begin, range.count * n, width);
  }
  std::size_t read_state(std::size_t i) const {
    return static_cast<std::size_t>(layout.read.begin) + i;
  }
  const T* kept_of(Index token) const { return to.kept + token * kept.width; }
  const T* gain(int norm) const { return from.numbers + norm * n; }
  bool adds_dy_itself() const { return masks.zoneout() || sizes.projected(); }

  UnitRowGradient<T> row_at(Index t, Index r, const CellConstants<T>& constants) const {
    const Index token = steps.first(t) + r;
    UnitRowGradient<T> row{
        n,
        to.sums + token * width,
        {},
        {},
        to.dy && !adds_dy_itself() ? to.dy + steps.place(t, r) * layer.y_stride : nullptr,
        arrays.d_operands.data() + r * n,
        arrays.operands.data() + token * n,
        from.numbers,
        constants.of(t, steps.row(r)),
        arrays.d_weights.data() + r * layout.weights * n,
        arrays.parts.data() + r * width};
    for (std::size_t k = 0; k < static_cast<std::size_t>(layout.states); ++k) {
      row.before[k] = before(t, r, k);
      row.gradients[k] = gradients[k] + r * sizes.state(k);
    }
    if (sizes.projected()) {  // the unit has its own h, and does not read that before the step
      row.before[0] = kept_of(token) + kept.unit_h;
      row.gradients[0] = arrays.d_unit_h.data() + r * n;
    }
    return row;
  }

  // State k of a row before step t.
  const T* before(Index t, Index r, std::size_t k) const {
    const Index previous = steps.previous(t, r, from.reverse);
    if (previous < 0) return initial[k] + r * sizes.state(k);
    return k == 0 ? to.y + steps.place(previous, r) * layer.y_stride
                  : kept_of(steps.first(previous) + r) + static_cast<Index>(k - 1) * n;
  }

  // Long sequences do not fit in the cache, and loops backward in time are not foreseen.
  void prefetch_row(Index t, Index r) const {
    if (r >= steps.active(t)) return;
    prefetch(to.sums + (steps.first(t) + r) * width, width);
    for (std::size_t k = 0; k < static_cast<std::size_t>(layout.states); ++k)
      prefetch(before(t, r, k), sizes.state(k));
    if (to.dy) prefetch(to.dy + steps.place(t, r) * layer.y_stride, sizes.output);
  }

  // dy, and what zoneout takes past the step.
  void hand_on(Index t, Index begin, Index end, T* mask) const {
    add_dy(t, begin, end);
    for (std::size_t k = 0; k < static_cast<std::size_t>(layout.states); ++k)
      for (Index r = begin; r < end; ++r) {
        const Mask kind = Masks<T>::zoneout_of(k);
        const Index size = sizes.state(k);
        T *g = gradients[k] + r * size, *share = share_of(k, r);
        std::fill_n(mask, size, T(0));
        if (masks.has(kind)) masks.draw(kind, t, steps.row(r), size, mask);
        for (Index j = 0; j < size; ++j) {
          share[j] = part_of(mask[j], g[j]);
          g[j] = part_of(1 - mask[j], g[j]);
        }
      }
  }
  T* share_of(std::size_t k, Index r) const {
    return arrays.shares.data() + (static_cast<Index>(k) * steps.rows() + r) * n;
  }
  void add_shares(Index begin, Index end) const {
    for (std::size_t k = 0; k < static_cast<std::size_t>(layout.states); ++k)
      for (Index r = begin; r < end; ++r)
        add(gradients[k] + r * sizes.state(k), share_of(k, r), sizes.state(k));
  }
  void add_dy(Index t, Index begin, Index end) const {
    for (Index r = begin; to.dy && r < end; ++r)
      add(gradients[0] + r * sizes.output, to.dy + steps.place(t, r) * layer.y_stride,
          sizes.output);
  }
  static void add(T* to, const T* x, Index count) {
    for (Index j = 0; j < count; ++j) to[j] += x[j];
  }

  // From the gradient of h to that of the unit's h.
  void unproject(Index t, Index begin, Index end) const {
    if (!masks.zoneout()) add_dy(t, begin, end);
    const Index size = sizes.output, rows = end - begin;
    const T* d = std::copy_n(gradients[0] + begin * size, rows * size,
                             arrays.d_h.data() + (steps.first(t) + begin) * size) -
                 rows * size;
    step_product(MatrixView<T>::row_major(d, rows, size), w_projection,
                 arrays.d_unit_h.data() + begin * n, n, Write::assign);
  }

  void second(Index t, Index begin, Index end, const CellConstants<T>& constants) const {
    const MatrixView<T> d = sums(t, begin, end, layout.second);
    T* d_operands = arrays.d_operands.data() + begin * n;
    if (!layout.second_is_norm) step_product(d, w_second, d_operands, n, Write::assign);
    for (Index r = begin; r < end; ++r) {
      if (layout.second_is_norm) {
        const T *row = d.data + (r - begin) * width, *token = kept_of(steps.first(t) + r);
        T* d_operand = d_operands + (r - begin) * n;
        const T* of_norm = gain(layout.second_norm());
        for (Index j = 0; j < n; ++j) d_operand[j] = of_norm[j] * row[j];
        normalize_row_gradient(token + kept.second, token[kept.width - 1], n, d_operand);
      }
      layer.cell.operand_gradient(row_at(t, r, constants));
    }
  }

  // From the gradients of the sums to that of h in the product.
  void recurrent(Index t, Index begin, Index end, T* mask) const {
    const Index size = sizes.output, columns = layout.recurrent.count * n;
    MatrixView<T> d = sums(t, begin, end, layout.recurrent);
    if (layout.norm) {
      T* products = arrays.d_products.data() + (steps.first(t) + begin) * columns;
      const T* of_norm = gain(layout.recurrent_norm());
      for (Index i = 0; i < d.rows; ++i) {
        const T* token = kept_of(steps.first(t) + begin + i);
        T* row = products + i * columns;
        for (Index j = 0; j < columns; ++j) row[j] = of_norm[j] * d.data[i * width + j];
        normalize_row_gradient(token + kept.recurrent, token[kept.deviations + 1], columns, row);
      }
      d = MatrixView<T>::row_major(products, d.rows, columns);
    }
    if (!masks.has(Mask::hidden))
      return step_product(d, w_first, gradients[0] + begin * size, size, Write::add);
    T* masked = arrays.masked.data() + begin * size;
    step_product(d, w_first, masked, size, Write::assign);
    for (Index r = begin; r < end; ++r) {
      masks.draw(Mask::hidden, t, steps.row(r), size, mask);
      for (Index j = 0; j < size; ++j)
        gradients[0][r * size + j] += mask[j] * masked[(r - begin) * size + j];
    }
  }

  // A chain of many additions in f32 would lose digits: after every few steps the sums go on in
  // double.
  void move_weight_gradients(Index begin, Index end) const {
    const Index size = layout.weights * n;
    for (Index i = begin * size; i < end * size; ++i) {
      arrays.d_weights_before.data()[i] += static_cast<double>(arrays.d_weights.data()[i]);
      arrays.d_weights.data()[i] = 0;
    }
  }

  // --- the gradients of the parameters, one product each for all tokens ---

  MatrixView<T> all_sums(int sum, int count) const {
    return MatrixView<T>::row_major(to.sums + sum * n, steps.tokens(), count * n, width);
  }
  static void product(MatrixView<T> d, MatrixView<T> operand, T* dw, Write write = Write::assign) {
    matmul(d.transposed(), operand, dw, operand.cols, write);
  }

  // Also dx += d W, where dx is not null.
  void parameter_gradients(const T* x, T* dx, Write write) const {
    input_gradients(x, dx, write);
    const Index tokens = steps.tokens();
    if (to.dw_hh && layout.recurrent.count > 0) recurrent_weight_gradient();
    if (to.dw_hh && layout.second.count > 0 && !layout.second_is_norm)
      product(all_sums(layout.second.begin, layout.second.count),
              MatrixView<T>::row_major(arrays.operands.data(), tokens, n),
              to.dw_hh + layout.recurrent.count * n * n);
    if (to.dw_hh) read_weight_gradients();
    if (to.d_projection)
      product(MatrixView<T>::row_major(arrays.d_h.data(), tokens, sizes.output),
              MatrixView<T>::row_major(to.kept + kept.unit_h, tokens, n, kept.width),
              to.d_projection);
    bias_gradients();
    if (to.d_numbers) number_gradients();
  }

  void input_gradients(const T* x, T* dx, Write write) const {
    const Index features = sizes.features, block = n * features;
    const auto both = [&](MatrixView<T> d, const T* w, T* dw, Index begin) {
      if (dw) product(d, MatrixView<T>::row_major(x, d.rows, features), dw + begin);
      if (dx) matmul(d, MatrixView<T>::row_major(w + begin, d.cols, features), dx, features, write);
      write = Write::add;
    };
    if (layout.norm) {
      const Index columns = layout.inputs * n;
      const Scratch<T> d(steps.tokens() * columns);
      unnormalize(d.data());
      return both(MatrixView<T>::row_major(d.data(), steps.tokens(), columns), from.w_ih, to.dw_ih,
                  0);
    }
    const OrderedBlocks<T> weights(layout, block), gradients(layout, block);
    const T* const w = weights.of(from.w_ih);
    T* const dw = to.dw_ih ? gradients.place_for(to.dw_ih) : nullptr;
    each_input_run(layout, [&](int sum, int count, int begin) {
      both(all_sums(sum, count), w, dw, begin * block);
    });
    if (to.dw_ih) gradients.finish(to.dw_ih);
  }
  // The gradients of W x [tokens, inputs, H] before its normalisation.
  void unnormalize(T* d_products) const {
    const Index columns = layout.inputs * n;
    const T* const of_norm = gain(layout.input_norm());
    for (Index token = 0; token < steps.tokens(); ++token) {
      T* d = d_products + token * columns;
      each_input(layout, [&](int gate, int sum) {
        for (Index j = 0; j < n; ++j)
          d[gate * n + j] = of_norm[gate * n + j] * to.sums[token * width + sum * n + j];
      });
      normalize_row_gradient(kept_of(token) + kept.input, kept_of(token)[kept.deviations], columns,
                             d);
    }
  }

  // d w_hh = Σ dᵀ (h before the step).
  void recurrent_weight_gradient() const {
    const Index rows = steps.rows(), tokens = steps.tokens(), later = tokens - rows;
    const Index size = sizes.output, columns = layout.recurrent.count * n;
    const MatrixView<T> d =
        layout.norm ? MatrixView<T>::row_major(arrays.d_products.data(), tokens, columns)
                    : all_sums(layout.recurrent.begin, layout.recurrent.count);
    if (!steps.uniform() || masks.has(Mask::hidden)) {
      const Scratch<T> operands(tokens * size);
      each_step_of_rows([&](Index t, Index r, Index token) {
        copy_operand(t, r, operands.data() + token * size);
      });
      return product(d, MatrixView<T>::row_major(operands.data(), tokens, size), to.dw_hh);
    }
    // The step that runs first begins with the initial states, all others with y of the one before.
    const bool any = tokens > 0;
    const Index first = from.reverse && any ? later : 0, rest = from.reverse ? 0 : rows;
    product(d.row_range(first, any ? first + rows : first),
            MatrixView<T>::row_major(initial[0], any ? rows : 0, size), to.dw_hh);
    if (later > 0)
      product(d.row_range(rest, rest + later),
              MatrixView<T>::row_major(to.y + (from.reverse ? rows * layer.y_stride : 0), later,
                                       size, layer.y_stride),
              to.dw_hh, Write::add);
  }
  // The same for the other states that are operands.
  void read_weight_gradients() const {
    const Index tokens = steps.tokens();
    const Scratch<T> states(w_read.empty() ? 0 : tokens * n);
    for (std::size_t i = 0; i < w_read.size(); ++i) {
      each_step_of_rows([&](Index t, Index r, Index token) {
        std::copy_n(before(t, r, read_state(i)), n, states.data() + token * n);
      });
      product(all_sums(layout.read_by.begin, layout.read_by.count),
              MatrixView<T>::row_major(states.data(), tokens, n),
              to.dw_hh + layout.read_block(static_cast<int>(i)) * n * n);
    }
  }
  // Calls f(t, row, token) for every token.
  template <class F>
  void each_step_of_rows(F f) const {
    for (Index t = 0; t < steps.count(); ++t)
      for (Index r = 0; r < steps.active(t); ++r) f(t, r, steps.first(t) + r);
  }
  // h of a row before step t, as the product reads it.
  void copy_operand(Index t, Index r, T* operand) const {
    const T* h = before(t, r, 0);
    if (!masks.has(Mask::hidden)) {
      std::copy_n(h, sizes.output, operand);
      return;
    }
    masks.draw(Mask::hidden, t, steps.row(r), sizes.output, operand);
    for (Index j = 0; j < sizes.output; ++j) operand[j] *= h[j];
  }

  void bias_gradients() const {
    if (!to.db && !to.d_recurrent_bias) return;
    const Scratch<T> all(width);
    column_sums(all_sums(0, layout.sums), all.data());
    if (to.db)
      each_input(layout, [&](int gate, int sum) {
        std::copy_n(all.data() + sum * n, n, to.db + gate * n);
      });
    if (to.d_recurrent_bias)
      std::copy_n(all.data() + layout.recurrent_bias * n, n, to.d_recurrent_bias);
  }

  void number_gradients() const {
    for (Index j = 0; j < layout.weights * n; ++j) {
      double sum = 0;
      for (Index r = 0; r < steps.rows(); ++r)
        sum += arrays.d_weights_before.data()[r * layout.weights * n + j];
      to.d_numbers[j] = static_cast<T>(sum);
    }
    if (layout.norm) {
      each_input(layout, [&](int gate, int sum) {
        gain_gradient({sum, 1}, kept.input + gate * n, layout.input_norm() + gate);
      });
      gain_gradient(layout.recurrent, kept.recurrent, layout.recurrent_norm());
    }
    if (!layout.second_is_norm) return;
    gain_gradient(layout.second, kept.second, layout.second_norm());
    column_sums(all_sums(layout.second.begin, 1), to.d_numbers + (layout.second_norm() + 1) * n);
  }
  // Σ d ∘ normal.
  void gain_gradient(CellLayout::Range range, Index normal, int number) const {
    const Index columns = range.count * n, tokens = steps.tokens();
    const Scratch<T> terms(tokens * columns);
    for (Index token = 0; token < tokens; ++token) {
      const T *d = to.sums + token * width + range.begin * n, *of = kept_of(token) + normal;
      for (Index j = 0; j < columns; ++j) terms.data()[token * columns + j] = d[j] * of[j];
    }
    column_sums(MatrixView<T>::row_major(terms.data(), tokens, columns), to.d_numbers + number * n);
  }
};

}  // namespace

template <Real T>
void Recurrence<T>::backward(std::span<const DirectionGradients<T>> gradients, T* dx) const {
  const SortedStates<T> initial(steps, cell.layout, sizes, directions.size());
  const SortedStates<T> d_states(steps, cell.layout, sizes, directions.size());
  std::array<std::optional<BackwardPass<T>>, 2> passes;
  for (std::size_t way = 0; way < directions.size(); ++way) {
    initial.load(way, directions[way].initial);
    d_states.load(way, gradients[way].d_last);
    BackwardPass<T>& pass = passes[way].emplace(*this, gradients, way);
    for (std::size_t k = 0; k < static_cast<std::size_t>(cell.layout.states); ++k) {
      pass.initial[k] = initial(way, k);
      pass.gradients[k] = d_states(way, k);
    }
  }
  each_row_block(steps, directions.size(),
                 [&](std::size_t way, Index begin, Index end) { passes[way]->run(begin, end); });

  const Tokens<T> tokens(steps, x, sizes.features);
  const Scratch<T> own(steps.uniform() || !dx ? 0 : steps.tokens() * sizes.features);
  T* const dx_of_tokens = steps.uniform() ? dx : dx ? own.data() : nullptr;
  for (std::size_t way = 0; way < directions.size(); ++way) {
    passes[way]->parameter_gradients(tokens.data(), dx_of_tokens,
                                     way == 0 ? Write::assign : Write::add);
    d_states.store(way, gradients[way].d_initial);
  }
  if (!dx) return;
  const Index features = sizes.features;
  if (!steps.uniform())
    steps.each_token([&](Index token, Index place) {
      std::copy_n(own.data() + token * features, features, dx + place * features);
    });
  each_padding(steps, [&](Index place) { std::fill_n(dx + place * features, features, T(0)); });
}

template void Recurrence<float>::backward(std::span<const DirectionGradients<float>>, float*) const;
template void Recurrence<double>::backward(std::span<const DirectionGradients<double>>,
                                           double*) const;

}  // namespace reel::kernels
