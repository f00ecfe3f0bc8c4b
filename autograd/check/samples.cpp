#include <reel/autograd/check/samples.h>

namespace reel::op {
namespace {

Tensor shuffled_grid(Rng& rng, const Shape& shape, DType dtype) {
  std::vector<double> numbers(static_cast<std::size_t>(shape.size()));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = (static_cast<double>(i) - static_cast<double>(numbers.size()) / 2) / 10 + 0.001;
    std::swap(numbers[i],
              numbers[static_cast<std::size_t>(rng.integer(static_cast<Index>(i) + 1))]);
  }
  return tensor(shape, numbers, dtype);
}

}  // namespace

Tensor Generator::draw(Rng& rng, DType dtype) const {
  switch (kind) {
    case Kind::normal:
      return rng.normal(shape, 0, 1, dtype);
    case Kind::uniform:
      return rng.uniform(shape, low, high, dtype);
    case Kind::distinct:
      return shuffled_grid(rng, shape, dtype);
    case Kind::values:
      return tensor(shape, fixed, dtype);
    case Kind::away_from_zero: {
      Tensor x = rng.normal(shape, 0, 1, dtype);
      dispatch_real(dtype, [&]<class T>() {
        for (T& value : x.begin_update<T>()) value += value < 0 ? T(-0.1) : T(0.1);
      });
      return x;
    }
    case Kind::absent:
      return {};
    case Kind::indices:
      break;
  }
  Tensor x(shape, i32);
  for (std::int32_t& value : x.begin_update<std::int32_t>())
    value = static_cast<std::int32_t>(rng.integer(inclusive ? limit + 1 : limit));
  return x;
}

}  // namespace reel::op
