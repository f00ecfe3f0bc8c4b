#include <reel/autograd/kernels/input_sums.h>

#include <algorithm>
#include <utility>

#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/kernels/row_norm.h>
#include <reel/autograd/kernels/thread_pool.h>

namespace reel::kernels {

template <Real T>
void sum_biases(const CellLayout& layout, Index n, const T* b, const T* recurrent_bias, T* biases) {
  std::fill_n(biases, layout.sums * n, T(0));
  if (b)
    each_input_run(layout, [&](int gate, int sum, int count) {
      std::copy_n(b + gate * n, count * n, biases + sum * n);
    });
  if (recurrent_bias)
    for (Index j = 0; j < n; ++j) biases[layout.recurrent_bias * n + j] += recurrent_bias[j];
}

template <Real T>
void fill_biases(const CellLayout& layout, Index n, Index tokens, const T* biases, T* sums) {
  for (int sum = 0; sum < layout.sums; ++sum) {
    const auto end = layout.input.begin() + layout.inputs;
    if (std::find(layout.input.begin(), end, sum) != end) continue;
    for (Index token = 0; token < tokens; ++token)
      std::copy_n(biases + sum * n, n, sums + (token * layout.sums + sum) * n);
  }
}

template <Real T>
void input_sums(const CellLayout& layout, Index n, const T* x, Index tokens, Index features,
                const T* w_ih, const T* biases, T* sums) {
  each_input_run(layout, [&](int gate, int sum, int count) {
    const auto w = MatrixView<T>::row_major(w_ih + gate * n * features, count * n, features);
    matmul(MatrixView<T>::row_major(x, tokens, features), w.transposed(), biases + sum * n, 0,
           sums + sum * n, layout.sums * n);
  });
}

template <Real T>
void normalized_input_sums(const CellLayout& layout, Index n, Index rows, T* products, T* inverses,
                           Index stride, const T* gain, const T* biases, T* sums) {
  constexpr Index block = 64;
  const Index width = layout.sums * n;
  parallel_for((rows + block - 1) / block, [&](Index task) {
    for (Index r = task * block; r < std::min(rows, (task + 1) * block); ++r) {
      T *product = products + r * stride, *to = sums + r * width;
      inverses[r * stride] = normalize_row(product, layout.inputs * n);
      std::copy_n(biases, width, to);
      each_input_run(layout, [&](int gate, int sum, int count) {
        for (Index j = 0; j < count * n; ++j)
          to[sum * n + j] += gain[gate * n + j] * product[gate * n + j];
      });
    }
  });
}

template <Real T>
PackedInput<T>::PackedInput(const CellLayout& layout, Index n, const T* w_ih, Index features,
                            PoolVector<T> biases, const T* numbers)
    : layout_(layout), n_(n), features_(features), biases_(std::move(biases)), numbers_(numbers) {
  if (layout.norm) {
    runs_.emplace_back(0, MatrixView<T>::row_major(w_ih, layout.inputs * n, features).transposed());
    return;
  }
  each_input_run(layout, [&](int gate, int sum, int count) {
    const auto w = MatrixView<T>::row_major(w_ih + gate * n * features, count * n, features);
    runs_.emplace_back(sum, w.transposed());
  });
}

template <Real T>
void PackedInput<T>::operator()(const T* x, Index rows, T* sums) const {
  const auto a = MatrixView<T>::row_major(x, rows, features_);
  if (layout_.norm) {
    const Index width = layout_.inputs * n_;
    const Scratch<T> products(rows * width), inverses(rows * width);
    multiply(a, runs_[0].w, products.data(), width, Write::assign);
    return normalized_input_sums(layout_, n_, rows, products.data(), inverses.data(), width,
                                 numbers_ + layout_.input_norm() * n_, biases_.data(), sums);
  }
  fill_biases(layout_, n_, rows, biases_.data(), sums);
  for (const Run& run : runs_)
    multiply(a, run.w, biases_.data() + run.sum * n_, 0, sums + run.sum * n_, layout_.sums * n_);
}

template <Real T>
void column_sums(MatrixView<T> d, T* out) {
  constexpr Index worth_a_fork = 1 << 20;  // elements
  const Index block = d.rows * d.cols < worth_a_fork ? std::max<Index>(1, d.cols) : 256;
  parallel_for((d.cols + block - 1) / block, [&](Index task) {
    const Index begin = task * block, end = std::min(d.cols, begin + block);
    sum_columns(
        d.data + begin, d.rows, end - begin, d.row_stride, [](T x, Index) { return x; },
        [&](Index c, double total) { out[begin + c] = static_cast<T>(total); });
  });
}

template class PackedInput<float>;
template class PackedInput<double>;
template void column_sums(MatrixView<float>, float*);
template void column_sums(MatrixView<double>, double*);
template void sum_biases(const CellLayout&, Index, const float*, const float*, float*);
template void sum_biases(const CellLayout&, Index, const double*, const double*, double*);
template void fill_biases(const CellLayout&, Index, Index, const float*, float*);
template void fill_biases(const CellLayout&, Index, Index, const double*, double*);
template void normalized_input_sums(const CellLayout&, Index, Index, float*, float*, Index,
                                    const float*, const float*, float*);
template void normalized_input_sums(const CellLayout&, Index, Index, double*, double*, Index,
                                    const double*, const double*, double*);
template void input_sums(const CellLayout&, Index, const float*, Index, Index, const float*,
                         const float*, float*);
template void input_sums(const CellLayout&, Index, const double*, Index, Index, const double*,
                         const double*, double*);

}  // namespace reel::kernels
