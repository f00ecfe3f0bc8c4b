#include <reel/autograd/kernels/input_sums.h>

#include <algorithm>

#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/kernels/row_norm.h>
#include <reel/autograd/kernels/thread_pool.h>

namespace reel::kernels {

template <Real T>
PackedInput<T>::PackedInput(const CellLayout& layout, const CellSizes& sizes,
                            const Direction<T>& from)
    : layout_(layout),
      sizes_(sizes),
      kept_(layout, sizes),
      numbers_(from.numbers),
      biases_(static_cast<std::size_t>(layout.sums * sizes.units)) {
  const Index n = sizes.units, block = n * sizes.features;
  each_input(layout, [&](int gate, int sum) {
    if (from.b) std::copy_n(from.b + gate * n, n, bias(sum));
  });
  for (Index j = 0; from.recurrent_bias && j < n; ++j)
    bias(layout.recurrent_bias)[j] += from.recurrent_bias[j];
  const auto pack = [&](int sum, int count, const T* w) {
    const auto rows = MatrixView<T>::row_major(w, count * n, sizes.features);
    runs_.push_back({sum, PackedMatrix<T>(rows.transposed())});
  };
  if (layout.norm) {
    pack(0, layout.inputs, from.w_ih);
    return;
  }
  const OrderedBlocks<T> blocks(layout, block);
  const T* const w = blocks.of(from.w_ih);
  each_input_run(layout,
                 [&](int sum, int count, int begin) { pack(sum, count, w + begin * block); });
}

template <Real T>
void PackedInput<T>::operator()(const T* x, Index tokens, T* sums, T* kept) const {
  const auto a = MatrixView<T>::row_major(x, tokens, sizes_.features);
  if (layout_.norm) {
    matmul(a, runs_[0].w, kept + kept_.input, kept_.width, Write::assign);
    return normalize(tokens, sums, kept);
  }
  const Index n = sizes_.units;
  for (const Run& run : runs_)
    matmul(a, run.w, bias(run.sum), 0, sums + run.sum * n, layout_.sums * n);
  if (layout_.inputs < layout_.sums) fill_biases(tokens, sums);
}

// The sums to which no W x belongs.
template <Real T>
void PackedInput<T>::fill_biases(Index tokens, T* sums) const {
  const Index n = sizes_.units;
  for (int sum = 0; sum < layout_.sums; ++sum)
    for (Index token = 0; layout_.input_block(sum) < 0 && token < tokens; ++token)
      std::copy_n(bias(sum), n, sums + (token * layout_.sums + sum) * n);
}

template <Real T>
void PackedInput<T>::normalize(Index tokens, T* sums, T* kept) const {
  constexpr Index block = 64;
  const Index n = sizes_.units, width = layout_.sums * n;
  const T* gain = numbers_ + layout_.input_norm() * n;
  parallel_for((tokens + block - 1) / block, [&](Index task) {
    for (Index token = task * block; token < std::min(tokens, (task + 1) * block); ++token) {
      T* of_token = kept + token * kept_.width;
      T *product = of_token + kept_.input, *to = sums + token * width;
      of_token[kept_.deviations] = normalize_row(product, layout_.inputs * n);
      std::copy_n(biases_.data(), width, to);
      each_input(layout_, [&](int gate, int sum) {
        for (Index j = 0; j < n; ++j) to[sum * n + j] += gain[gate * n + j] * product[gate * n + j];
      });
    }
  });
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

}  // namespace reel::kernels
