#include <reel/autograd/engine/packed_factors.h>

#include <algorithm>
#include <array>
#include <optional>
#include <type_traits>

#include <reel/autograd/kernels/matmul.h>
#include <reel/autograd/precision.h>

namespace reel {
namespace {

// A matrix in memory, as a product reads and rounds it.
struct Place {
  const void* data = nullptr;
  Index rows = 0, cols = 0, row_stride = 0;
  Precision precision = matmul_precision();

  bool operator==(const Place&) const = default;
};

Place place_of(const Tensor& b, bool transpose) {
  const void* data = b.buffer().data();
  return transpose ? Place{data, b.size(1), b.size(0), 1}
                   : Place{data, b.size(0), b.size(1), b.size(1)};
}

struct Factor {
  Place place = {};
  Buffer held = {};
  std::uint64_t last_use = 0;
  std::optional<kernels::PackedMatrix<float>> of_f32 = {};
  std::optional<kernels::PackedMatrix<double>> of_f64 = {};

  template <Real T>
  auto& packed() {
    if constexpr (std::is_same_v<T, float>)
      return of_f32;
    else
      return of_f64;
  }
  void release() {
    of_f32.reset();
    of_f64.reset();
    held = {};
    place = {};
    last_use = 0;
  }
};

// Of a thread. Sixteen factors are more than the cells of a model have in one layer.
struct Factors {
  int scopes = 0;
  std::uint64_t uses = 0;
  std::array<Factor, 16> kept;
  std::array<Place, 32> once{};  // those that were used once, most recently
  std::size_t next_once = 0;

  Factor* find(const Place& place) {
    const auto found = std::ranges::find(kept, place, &Factor::place);
    if (found == kept.end()) return nullptr;
    found->last_use = ++uses;
    return &*found;
  }
  void keep(const Place& place, const Tensor& b) {
    Factor& oldest = *std::ranges::min_element(kept, {}, &Factor::last_use);
    oldest.release();
    oldest.place = place;
    oldest.held = b.buffer();
    oldest.last_use = ++uses;
  }
  void clear() {
    for (Factor& factor : kept) factor.release();
    once.fill({});
  }
};

thread_local Factors factors;

}  // namespace

PackedFactors::PackedFactors() { ++factors.scopes; }
PackedFactors::~PackedFactors() {
  if (--factors.scopes == 0) factors.clear();
}

void PackedFactors::expect(const Tensor& b, bool transpose) {
  constexpr Index smallest = 1024;  // elements
  if (factors.scopes == 0 || !b.defined() || b.rank() != 2 || b.size() < smallest ||
      !is_real(b.dtype()) || b.buffer().exposed())
    return;
  const Place place = place_of(b, transpose);
  if (factors.find(place)) return;
  if (std::ranges::find(factors.once, place) != factors.once.end())
    factors.keep(place, b);
  else
    factors.once[factors.next_once++ % factors.once.size()] = place;
}

template <Real T>
const kernels::PackedMatrix<T>* PackedFactors::find(const kernels::MatrixView<T>& b) {
  if (factors.scopes == 0) return nullptr;
  Factor* factor = factors.find({b.data, b.rows, b.cols, b.row_stride});
  if (!factor) return nullptr;
  auto& packed = factor->packed<T>();
  if (!packed) packed.emplace(b);
  return &*packed;
}

template const kernels::PackedMatrix<float>* PackedFactors::find(const kernels::MatrixView<float>&);
template const kernels::PackedMatrix<double>* PackedFactors::find(
    const kernels::MatrixView<double>&);

}  // namespace reel
