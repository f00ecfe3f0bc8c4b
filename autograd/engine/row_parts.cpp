// The gradient of a parameter of which only rows were read.
#include <algorithm>
#include <functional>

#include <reel/autograd/engine/backward.h>
#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/kernels/row_sources.h>
#include <reel/autograd/ops.h>

namespace reel {
namespace {

// Sums up one row at a time with the bits that `accumulate` gives whole gradients: first within
// each part, then the parts in their order, in chains of at most `chain` of them whose sums are
// added in double. That a row is not in a part shows only where it makes 0 of -0, from which every
// sum begins, as it is what changes no number that is added to it.
template <class T>
class RowSum {
 public:
  RowSum(const Tensors& parts, std::span<const Index> ends, Index width, std::size_t chain)
      : parts_(parts), ends_(ends), width_(width), chain_(chain), total_(width), chains_(width) {}

  // `places` are those of the row among the rows of all parts, of which part k ends at ends[k].
  void operator()(std::span<const Index> places, T* sum) const {
    const bool is_short = parts_.size() <= chain_;
    std::fill_n(chains_.data(), width_, -0.0);
    for (std::size_t k = 0; k < parts_.size(); k += chain_) {
      places = add_chain(k, std::min(k + chain_, parts_.size()), places, sum);
      if (!is_short)
        std::transform(sum, sum + width_, chains_.data(), chains_.data(), std::plus<double>{});
    }
    if (!is_short)
      std::transform(chains_.data(), chains_.data() + width_, sum,
                     [](double x) { return static_cast<T>(x); });
  }

 private:
  // Returns the places in later parts.
  std::span<const Index> add_chain(std::size_t begin, std::size_t end,
                                   std::span<const Index> places, T* sum) const {
    bool in_all = true;
    std::fill_n(sum, width_, T(-0.0));
    for (std::size_t k = begin; k < end; ++k) {
      const auto later = std::ranges::lower_bound(places, ends_[k]);
      const auto count = static_cast<std::size_t>(later - places.begin());
      in_all &= count > 0;
      if (count > 0) add_part(k, places.first(count), sum);
      places = places.subspan(count);
    }
    if (!in_all) std::transform(sum, sum + width_, sum, [](T x) { return x + T(0); });
    return places;
  }

  void add_part(std::size_t k, std::span<const Index> places, T* sum) const {
    const Index first = k == 0 ? 0 : ends_[k - 1];
    kernels::add_columns<T>(
        std::ssize(places), width_,
        [x = parts_[k].begin<T>(), at = places.data(), first, width = width_](Index i, Index c) {
          return x[(at[i] - first) * width + c];
        },
        total_.data());
    for (Index c = 0; c < width_; ++c) sum[c] += static_cast<T>(total_[c]);
  }

  const Tensors& parts_;
  std::span<const Index> ends_;
  Index width_;
  std::size_t chain_;
  Scratch<double> total_, chains_;
};

}  // namespace

// The rows are deferred like products, until the pass is complete or something else is added.
void Backward::add_rows(std::int32_t slot, const Tensor& source, const Tensor& rows) {
  const unsigned marks = marks_of(slot);
  const Tape::Slot& of = tape_.slots_[static_cast<std::size_t>(slot)];
  if (!by_rows_ || (marks & wanted) == 0 || (marks & parameter) == 0 || options_.create_graph ||
      tape_.options_.check_finite || gradients_[static_cast<std::size_t>(slot)].buffer)
    return accumulate(slot, scatter_add_rows(source, rows, of.shape[0]));
  auto found = row_parts_of(slot);
  if (found == row_parts_.end()) found = row_parts_.insert(found, {slot});
  found->rows.push_back(rows);
  found->values.push_back(source);
}

// The gradient becomes a whole one, as if it had been from the first contribution on.
void Backward::spread_rows(std::int32_t slot) {
  const auto found = row_parts_of(slot);
  if (found == row_parts_.end()) return;
  const RowParts parts = std::move(*found);
  row_parts_.erase(found);
  const Index count = tape_.slots_[static_cast<std::size_t>(slot)].shape[0];
  for (std::size_t k = 0; k < parts.rows.size(); ++k)
    accumulate(slot, scatter_add_rows(parts.values[k], parts.rows[k], count));
}

void Backward::add_sum(RowParts& parts) const {
  const Tape::Slot& of = tape_.slots_[static_cast<std::size_t>(parts.slot)];
  PoolVector<std::int32_t> all, different;
  PoolVector<Index> ends;
  for (const Tensor& rows : parts.rows) {
    const std::span<const std::int32_t> own = rows.values<std::int32_t>();
    all.insert(all.end(), own.begin(), own.end());
    ends.push_back(std::ssize(all));
  }
  const kernels::RowSources sources(all, of.shape[0]);
  for (Index row = 0; row < of.shape[0]; ++row)
    if (!sources[row].empty()) different.push_back(static_cast<std::int32_t>(row));

  const Index count = std::ssize(different), width = of.shape[1];
  parts.sum = {tensor({count}, std::span<const std::int32_t>(different)),
               Tensor({count, width}, of.dtype)};
  dispatch_real(of.dtype, [&]<class T>() {
    const std::size_t chain = of.dtype == f32 ? few : parts.values.size();
    const RowSum<T> sum(parts.values, ends, width, chain);
    T* to = parts.sum.values.begin_update<T>().data();
    for (std::int32_t row : different) {
      sum(sources[row], to);
      to += width;
    }
  });
}

}  // namespace reel
