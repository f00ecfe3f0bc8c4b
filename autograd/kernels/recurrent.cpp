#include <reel/autograd/kernels/recurrent.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include <reel/autograd/kernels/prefetch.h>
#include <reel/autograd/kernels/thread_pool.h>

namespace reel::kernels {

namespace {

// A sequence [T, B, width] by tokens: the sequence itself, or a copy without the padding.
template <Real T>
class Tokens {
 public:
  Tokens(const Steps& steps, const T* sequence, Index width)
      : copy_(steps.uniform() ? 0 : steps.tokens() * width),
        data_(steps.uniform() ? sequence : copy_.data()) {
    if (!steps.uniform())
      steps.each_token([&](Index token, Index place) {
        std::copy_n(sequence + place * width, width, copy_.data() + token * width);
      });
  }
  const T* data() const { return data_; }

 private:
  Scratch<T> copy_;
  const T* data_;
};

// Calls f(place) for every step of a row that is padding.
template <class F>
void each_padding(const Steps& steps, F f) {
  for (Index t = 0; t < steps.total(); ++t)
    for (Index r = t < steps.count() ? steps.active(t) : 0; r < steps.rows(); ++r)
      f(steps.place(t, r));
}

}  // namespace

// --- products ---

template <Real T>
void step_product(MatrixView<T> a, const PackedMatrix<T>& w, T* c, Index ldc, Write write) {
  constexpr Index worth_a_fork = 1 << 22;  // multiplications
  if (a.rows < threads() && a.rows * a.cols * w.cols() >= worth_a_fork)
    matmul(a, w, c, ldc, write);
  else
    multiply(a, w, c, ldc, write);
}

namespace {

// Blocks of w_hh for one product of a step; transposed for the forward pass.
template <Real T>
MatrixView<T> blocks_of(const T* w_hh, Index n, Index begin, Index count, bool transposed) {
  const auto rows = MatrixView<T>::row_major(w_hh + begin * n * n, count * n, n);
  return transposed ? rows.transposed() : rows;
}

}  // namespace

template <Real T>
PackedCell<T>::PackedCell(const CellKernels<T>& kernels, const T* w_hh, Index n, Pass pass)
    : cell(kernels),
      units(n),
      first(blocks_of(w_hh, n, 0, cell.layout.recurrent.count, pass == Pass::forward)),
      second(blocks_of(w_hh, n, cell.layout.recurrent.count, cell.layout.second.count,
                       pass == Pass::forward)) {}

// --- both passes ---

namespace {

// Calls f(direction, begin, end) for blocks of rows in each direction, in parallel: rows are
// independent, so there is one fork and join for the layer and none for its steps, and no bit
// depends on how the rows are split. Only if the batch has fewer rows than threads are large
// products split by columns, step by step.
template <class F>
void each_row_block(const Steps& steps, std::size_t directions, F f) {
  const PoolVector<Index> bounds = steps.blocks(threads());
  const Index blocks = std::ssize(bounds) - 1;
  parallel_for(static_cast<Index>(directions) * blocks, [&](Index task) {
    const auto block = static_cast<std::size_t>(task % blocks);
    if (bounds[block] < bounds[block + 1])
      f(static_cast<std::size_t>(task / blocks), bounds[block], bounds[block + 1]);
  });
}

// States [B, H] of all directions, or their gradients, with the rows in the order of the steps.
template <Real T>
class SortedStates {
 public:
  SortedStates(const Steps& steps, const CellLayout& layout, Index n, std::size_t directions)
      : steps_(steps),
        count_(static_cast<std::size_t>(layout.states)),
        n_(n),
        data_(static_cast<Index>(directions * count_) * steps.rows() * n) {}

  T* operator()(std::size_t direction, std::size_t k) const {
    return data_.data() + static_cast<Index>(direction * count_ + k) * steps_.rows() * n_;
  }
  // Zeros where there is no state.
  void load(std::size_t direction, const std::array<const T*, max_states>& from) const {
    for (std::size_t k = 0; k < count_; ++k)
      for (Index r = 0; r < steps_.rows(); ++r) {
        T* to = (*this)(direction, k) + r * n_;
        from[k] ? std::copy_n(from[k] + steps_.row(r) * n_, n_, to) : std::fill_n(to, n_, T(0));
      }
  }
  // Where `to` is not null.
  void store(std::size_t direction, const std::array<T*, max_states>& to) const {
    for (std::size_t k = 0; k < count_; ++k)
      for (Index r = 0; to[k] && r < steps_.rows(); ++r)
        std::copy_n((*this)(direction, k) + r * n_, n_, to[k] + steps_.row(r) * n_);
  }

 private:
  const Steps& steps_;
  std::size_t count_;
  Index n_;
  Scratch<T> data_;
};

}  // namespace

template <Real T>
void Recurrence<T>::forward(std::span<const DirectionResults<T>> results) const {
  const CellLayout& layout = cell.layout;
  const auto states = static_cast<std::size_t>(layout.states);
  const Index n = units, width = layout.sums * n, ways = std::ssize(directions);
  const Tokens<T> tokens(steps, x, features);
  const SortedStates<T> sorted(steps, layout, n, directions.size());
  const Scratch<T> biases(width), not_kept(ways * steps.rows() * n),
      operands(ways * steps.rows() * n);
  std::array<std::optional<PackedCell<T>>, 2> packed;
  for (std::size_t way = 0; way < directions.size(); ++way) {
    const Direction<T>& d = directions[way];
    sum_biases(layout, n, d.b, d.recurrent_bias, biases.data());
    input_sums(layout, n, tokens.data(), steps.tokens(), features, d.w_ih, biases.data(),
               results[way].sums);
    packed[way].emplace(cell, d.w_hh, n, PackedCell<T>::Pass::forward);
    sorted.load(way, d.initial);
  }

  each_row_block(steps, directions.size(), [&](std::size_t way, Index begin, Index end) {
    const DirectionResults<T>& to = results[way];
    const Index own = static_cast<Index>(way) * steps.rows() * n;
    for (Index s = 0; s < steps.count(); ++s) {
      const Index t = steps.time(s, directions[way].reverse);
      const Index count = std::min(end, steps.active(t)) - begin;
      if (count <= 0) continue;
      T* sums = to.sums + (steps.first(t) + begin) * width;
      const auto row_at = [&](Index i) {
        const Index r = begin + i;
        UnitRow<T> row{
            n, sums + i * width, {}, {}, operands.data() + own + r * n, directions[way].weights};
        for (std::size_t k = 0; k < states; ++k) {
          row.states[k] = sorted(way, k) + r * n;
          row.kept[k] = k == 0       ? to.y + steps.place(t, r) * y_stride
                        : to.kept[k] ? to.kept[k] + (steps.first(t) + r) * n
                                     : not_kept.data() + own + r * n;
        }
        return row;
      };
      packed[way]->step(sorted(way, 0) + begin * n, count, sums, operands.data() + own + begin * n,
                        row_at);
    }
  });

  for (std::size_t way = 0; way < directions.size(); ++way) {
    sorted.store(way, results[way].last);
    each_padding(steps,
                 [&](Index place) { std::fill_n(results[way].y + place * y_stride, n, T(0)); });
  }
}

namespace {

// |dL/dh|² of a row after its step; in double, as the square of a vanishing f32 would underflow.
template <Real T>
double square_of_gradient(const UnitRowGradient<T>& row) {
  constexpr Index lanes = 8;
  std::array<double, lanes> sums{};
  const auto add = [&](Index j, std::size_t lane) {
    const double g =
        static_cast<double>(row.gradients[0][j]) + (row.dy ? static_cast<double>(row.dy[j]) : 0.0);
    sums[lane] += g * g;
  };
  Index j = 0;
  for (; j + lanes <= row.n; j += lanes)
    for (Index i = 0; i < lanes; ++i) add(j + i, static_cast<std::size_t>(i));
  for (; j < row.n; ++j) add(j, 0);
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

// The backward pass of one direction.
template <Real T>
struct BackwardPass {
  static constexpr Index few_steps = 32;

  const Recurrence<T>& layer;
  const Direction<T>& from;
  const DirectionGradients<T>& to;
  const PackedCell<T>& w;
  std::array<const T*, max_states> initial;  // [B, H], in the order of the steps
  std::array<T*, max_states> gradients;      // of the states, likewise
  T *d_operands, *operands, *parts;          // [B, H], [tokens, H], [B, sums, H]
  T* d_weights;                              // [B, weights, H], of the last few steps,
  double* d_weights_before;                  // and of those before them

  // A chain of many additions in f32 would lose digits: after every few steps the sums go on in
  // double.
  void move_weight_gradients(Index begin, Index end) const {
    const Index size = layer.cell.layout.weights * layer.units;
    for (Index i = begin * size; i < end * size; ++i) {
      d_weights_before[i] += static_cast<double>(d_weights[i]);
      d_weights[i] = 0;
    }
  }

  // Takes rows from begin to end through all steps; leaves the gradients of the sums in their
  // place, and those of the initial states in `gradients`.
  void run(Index begin, Index end) const {
    const CellKernels<T>& cell = layer.cell;
    const Steps& steps = layer.steps;
    const Index n = layer.units, width = cell.layout.sums * n;
    for (Index s = steps.count() - 1; s >= 0; --s) {
      const Index t = steps.time(s, from.reverse);
      const Index last = std::min(end, steps.active(t));
      if (last <= begin) continue;
      const auto block = [&](CellLayout::Range sums) {
        return MatrixView<T>::row_major(to.sums + (steps.first(t) + begin) * width + sums.begin * n,
                                        last - begin, sums.count * n, width);
      };
      for (Index r = begin; r < last; ++r) {
        if (s > 0) prefetch_row(steps.time(s - 1, from.reverse), r);
        const UnitRowGradient<T> row = row_at(t, r);
        if (to.d_h_squares) to.d_h_squares[steps.first(t) + r] = square_of_gradient(row);
        cell.unit_gradient(row);
      }
      if (cell.layout.second.count > 0) {
        step_product(block(cell.layout.second), w.second, d_operands + begin * n, n, Write::assign);
        for (Index r = begin; r < last; ++r) cell.operand_gradient(row_at(t, r));
      }
      if (cell.layout.recurrent.count > 0)
        step_product(block(cell.layout.recurrent), w.first, gradients[0] + begin * n, n,
                     Write::add);
      if (s % few_steps == 0) move_weight_gradients(begin, end);
    }
    move_weight_gradients(begin, end);
  }

  UnitRowGradient<T> row_at(Index t, Index r) const {
    const Index n = layer.units, token = layer.steps.first(t) + r;
    const CellLayout& layout = layer.cell.layout;
    UnitRowGradient<T> row{n,
                           to.sums + token * layout.sums * n,
                           {},
                           {},
                           to.dy ? to.dy + layer.steps.place(t, r) * layer.y_stride : nullptr,
                           d_operands + r * n,
                           operands + token * n,
                           from.weights,
                           d_weights + r * layout.weights * n,
                           parts + r * layout.sums * n};
    for (std::size_t k = 0; k < static_cast<std::size_t>(layout.states); ++k) {
      row.before[k] = before(t, r, k);
      row.gradients[k] = gradients[k] + r * n;
    }
    return row;
  }

  // State k of a row before step t.
  const T* before(Index t, Index r, std::size_t k) const {
    const Steps& steps = layer.steps;
    const Index previous = steps.previous(t, r, from.reverse);
    if (previous < 0) return initial[k] + r * layer.units;
    return k == 0 ? to.y + steps.place(previous, r) * layer.y_stride
                  : to.kept[k] + (steps.first(previous) + r) * layer.units;
  }

  // Long sequences do not fit in the cache, and loops backward in time are not foreseen.
  void prefetch_row(Index t, Index r) const {
    const Steps& steps = layer.steps;
    if (r >= steps.active(t)) return;
    const Index n = layer.units, width = layer.cell.layout.sums * n;
    prefetch(to.sums + (steps.first(t) + r) * width, width);
    for (std::size_t k = 0; k < static_cast<std::size_t>(layer.cell.layout.states); ++k)
      prefetch(before(t, r, k), n);
    if (to.dy) prefetch(to.dy + steps.place(t, r) * layer.y_stride, n);
  }

  // The gradients of the weights, from those of the sums: one product each for all tokens.
  void weight_gradients(const T* x) const {
    const CellLayout& layout = layer.cell.layout;
    const Index n = layer.units, tokens = layer.steps.tokens();
    const auto d = [&](int sum, int count) {
      return MatrixView<T>::row_major(to.sums + sum * n, tokens, count * n, layout.sums * n);
    };
    const auto product = [&](MatrixView<T> of, const T* operand, Index cols, T* dw) {
      matmul(of.transposed(), MatrixView<T>::row_major(operand, tokens, cols), dw, cols,
             Write::assign);
    };
    if (to.dw_ih)
      each_input_run(layout, [&](int gate, int sum, int count) {
        product(d(sum, count), x, layer.features, to.dw_ih + gate * n * layer.features);
      });
    if (to.dw_hh && layout.recurrent.count > 0)
      recurrent_weight_gradient(d(layout.recurrent.begin, layout.recurrent.count));
    if (to.dw_hh && layout.second.count > 0)
      product(d(layout.second.begin, layout.second.count), operands, n,
              to.dw_hh + layout.recurrent.count * n * n);
    const Scratch<T> sums(layout.sums * n);
    if (to.db || to.d_recurrent_bias) column_sums(d(0, layout.sums), sums.data());
    if (to.db)
      each_input_run(layout, [&](int gate, int sum, int count) {
        std::copy_n(sums.data() + sum * n, count * n, to.db + gate * n);
      });
    if (to.d_recurrent_bias)
      std::copy_n(sums.data() + layout.recurrent_bias * n, n, to.d_recurrent_bias);
    for (Index j = 0; to.d_weights && j < layout.weights * n; ++j) {
      double sum = 0;
      for (Index r = 0; r < layer.steps.rows(); ++r)
        sum += d_weights_before[r * layout.weights * n + j];
      to.d_weights[j] = static_cast<T>(sum);
    }
  }

  // d w_hh = Σ dᵀ (state before the step).
  void recurrent_weight_gradient(MatrixView<T> d) const {
    const Steps& steps = layer.steps;
    const Index n = layer.units, rows = steps.rows(), later = steps.tokens() - rows;
    const auto product = [&](MatrixView<T> of, const T* states, Index stride, Write write) {
      matmul(of.transposed(), MatrixView<T>::row_major(states, of.rows, n, stride), to.dw_hh, n,
             write);
    };
    if (!steps.uniform()) {
      const Scratch<T> states(steps.tokens() * n);
      for (Index t = 0; t < steps.count(); ++t)
        for (Index r = 0; r < steps.active(t); ++r)
          std::copy_n(before(t, r, 0), n, states.data() + (steps.first(t) + r) * n);
      return product(d, states.data(), n, Write::assign);
    }
    // The step that runs first begins with the initial states, all others with y of the one before.
    const bool any = steps.tokens() > 0;
    const Index first = from.reverse && any ? later : 0, rest = from.reverse ? 0 : rows;
    product(d.row_range(first, any ? first + rows : first), initial[0], n, Write::assign);
    if (later > 0)
      product(d.row_range(rest, rest + later), to.y + (from.reverse ? rows * layer.y_stride : 0),
              layer.y_stride, Write::add);
  }
};

}  // namespace

template <Real T>
void Recurrence<T>::backward(std::span<const DirectionGradients<T>> gradients, T* dx) const {
  const CellLayout& layout = cell.layout;
  const Index n = units, state_size = steps.rows() * n, ways = std::ssize(directions);
  const bool second = layout.second.count > 0;
  const SortedStates<T> initial(steps, layout, n, directions.size());
  const SortedStates<T> d_states(steps, layout, n, directions.size());
  const Scratch<T> d_operands(second ? ways * state_size : 0);
  const Scratch<T> operands(second ? ways * steps.tokens() * n : 0);
  const Scratch<T> parts(second ? ways * layout.sums * state_size : 0);
  const Index weights_size = ways * layout.weights * state_size;
  const Scratch<T> d_weights(weights_size);
  const Scratch<double> d_weights_before(weights_size);
  std::fill_n(d_weights.data(), weights_size, T(0));
  std::fill_n(d_weights_before.data(), weights_size, 0.0);
  std::array<std::optional<PackedCell<T>>, 2> packed;
  std::array<std::optional<BackwardPass<T>>, 2> passes;
  for (std::size_t way = 0; way < directions.size(); ++way) {
    const Index w = static_cast<Index>(way);
    initial.load(way, directions[way].initial);
    d_states.load(way, gradients[way].d_last);
    packed[way].emplace(cell, directions[way].w_hh, n, PackedCell<T>::Pass::backward);
    BackwardPass<T>& pass = passes[way].emplace(
        BackwardPass<T>{*this,
                        directions[way],
                        gradients[way],
                        *packed[way],
                        {},
                        {},
                        d_operands.data() + (second ? w * state_size : 0),
                        operands.data() + (second ? w * steps.tokens() * n : 0),
                        parts.data() + (second ? w * layout.sums * state_size : 0),
                        d_weights.data() + w * layout.weights * state_size,
                        d_weights_before.data() + w * layout.weights * state_size});
    for (std::size_t k = 0; k < static_cast<std::size_t>(layout.states); ++k) {
      pass.initial[k] = initial(way, k);
      pass.gradients[k] = d_states(way, k);
    }
  }
  each_row_block(steps, directions.size(),
                 [&](std::size_t way, Index begin, Index end) { passes[way]->run(begin, end); });

  const Tokens<T> tokens(steps, x, features);
  for (std::size_t way = 0; way < directions.size(); ++way) {
    passes[way]->weight_gradients(tokens.data());
    d_states.store(way, gradients[way].d_initial);
  }
  if (dx) input_gradient(gradients, dx);
}

template <Real T>
void Recurrence<T>::input_gradient(std::span<const DirectionGradients<T>> gradients, T* dx) const {
  const Scratch<T> own(steps.uniform() ? 0 : steps.tokens() * features);
  T* const to = steps.uniform() ? dx : own.data();
  Write write = Write::assign;
  for (std::size_t way = 0; way < directions.size(); ++way)
    each_input_run(cell.layout, [&](int gate, int sum, int count) {
      const Index width = cell.layout.sums * units;
      const T* w = directions[way].w_ih + gate * units * features;
      matmul(MatrixView<T>::row_major(gradients[way].sums + sum * units, steps.tokens(),
                                      count * units, width),
             MatrixView<T>::row_major(w, count * units, features), to, features, write);
      write = Write::add;
    });
  if (!steps.uniform())
    steps.each_token([&](Index token, Index place) {
      std::copy_n(to + token * features, features, dx + place * features);
    });
  each_padding(steps, [&](Index place) { std::fill_n(dx + place * features, features, T(0)); });
}

template struct PackedCell<float>;
template struct PackedCell<double>;
template struct Recurrence<float>;
template struct Recurrence<double>;
template void step_product(MatrixView<float>, const PackedMatrix<float>&, float*, Index, Write);
template void step_product(MatrixView<double>, const PackedMatrix<double>&, double*, Index, Write);

}  // namespace reel::kernels
