#include <reel/nn/init.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <reel/autograd/ops.h>

namespace reel::nn::init {
namespace {

void require_setting(const char* initializer, const char* what, double value, Site site) {
  if (!(value >= 0 && std::isfinite(value)))
    throw ValueError(
        fmt::format("{}: {} is {}, but has to be a finite number >= 0", initializer, what, value),
        site);
}

// A column-major matrix in double.
struct Columns {
  Index rows;
  std::span<double> numbers;
  double* operator[](Index c) const { return numbers.data() + c * rows; }
};

double dot(const double* a, const double* b, Index begin, Index end) {
  double sum = 0;
  for (Index i = begin; i < end; ++i) sum += a[i] * b[i];
  return sum;
}

// x -= 2 v (v·x), for elements from `begin` on: the Householder reflection for the unit vector v.
void reflect(double* x, const double* v, Index begin, Index end) {
  const double twice = 2 * dot(v, x, begin, end);
  for (Index i = begin; i < end; ++i) x[i] -= twice * v[i];
}

// Replaces a matrix with no more columns than rows by the Q of its QR decomposition with a positive
// diagonal of R (Householder, "Unitary triangularization of a nonsymmetric matrix", 1958). Column
// by column, in our own loops: a library's blocking depends on the processor's caches, and so would
// the last bits.
void orthonormalize(const Columns& a, Index columns) {
  std::vector<bool> turned;  // where the diagonal of R is negative
  for (Index c = 0; c < columns; ++c) {
    double* v = a[c];  // from row c on, the reflection that maps the column to the diagonal
    const double length = std::sqrt(dot(v, v, c, a.rows));
    turned.push_back(v[c] >= 0);  // the diagonal gets the opposite sign, to avoid cancellation
    v[c] += turned.back() ? length : -length;
    const double norm = std::sqrt(dot(v, v, c, a.rows));
    for (Index i = c; norm > 0 && i < a.rows; ++i) v[i] /= norm;
    for (Index next = c + 1; next < columns; ++next) reflect(a[next], v, c, a.rows);
  }
  // Q = H_0 H_1 ... applied to the first columns of the identity, starting with the last: column c
  // is no longer needed as a reflection when it becomes a column of Q.
  std::vector<double> v(static_cast<std::size_t>(a.rows));
  for (Index c = columns - 1; c >= 0; --c) {
    std::copy_n(a[c], a.rows, v.data());
    std::fill_n(a[c], a.rows, 0.0);
    a[c][c] = turned[static_cast<std::size_t>(c)] ? -1 : 1;
    for (Index k = c; k < columns; ++k) reflect(a[k], v.data(), c, a.rows);
  }
}

// Draws uniformly from the matrices with orthonormal rows or columns, whichever are fewer;
// row-major.
void draw_orthonormal(Rng& rng, Index rows, Index columns, double* to) {
  const Index longer = std::max(rows, columns), shorter = std::min(rows, columns);
  Tensor draws = rng.normal({longer, shorter}, 0, 1, f64);
  std::vector<double> numbers(static_cast<std::size_t>(draws.size()));
  const Columns q{longer, numbers};
  for (Index i = 0; i < longer; ++i)
    for (Index c = 0; c < shorter; ++c) q[c][i] = draws.begin<double>()[i * shorter + c];
  orthonormalize(q, shorter);
  for (Index row = 0; row < rows; ++row)
    for (Index column = 0; column < columns; ++column)
      to[row * columns + column] = rows >= columns ? q[column][row] : q[row][column];
}

void require_matrix(const char* initializer, const Shape& shape) {
  if (shape.rank() != 2)
    throw ShapeError(
        fmt::format("{}: the parameter must be a matrix, not {}", initializer, shape.str()),
        SiteScope::current());
}

double kaiming_deviation(const char* initializer, const KaimingOptions& options,
                         const Shape& shape) {
  require_matrix(initializer, shape);
  const Index fan = options.fan == Fan::in ? shape[1] : shape[0];
  return fan == 0 ? 0 : options.gain / std::sqrt(static_cast<double>(fan));
}

// Moves `count` different elements, drawn at random, to the front.
void draw_to_front(Rng& rng, Index count, std::vector<Index>& elements) {
  for (Index i = 0; i < count; ++i)
    std::swap(elements[static_cast<std::size_t>(i)],
              elements[static_cast<std::size_t>(i + rng.integer(std::ssize(elements) - i))]);
}

}  // namespace

Initializer constant(double value, Site site) {
  if (!std::isfinite(value))
    throw ValueError(fmt::format("init::constant: value is {}, but has to be finite", value), site);
  return [value](Rng&, const Shape& shape, DType dtype) { return full(shape, value, dtype); };
}

Initializer uniform(double bound, Site site) {
  require_setting("init::uniform", "bound", bound, site);
  return [bound](Rng& rng, const Shape& shape, DType dtype) {
    return rng.uniform(shape, -bound, bound, dtype);
  };
}

Initializer normal(double deviation, Site site) {
  require_setting("init::normal", "deviation", deviation, site);
  return [deviation](Rng& rng, const Shape& shape, DType dtype) {
    return rng.normal(shape, 0, deviation, dtype);
  };
}

Initializer xavier_uniform() {
  return [](Rng& rng, const Shape& shape, DType dtype) {
    require_matrix("init::xavier_uniform", shape);
    const double bound = std::sqrt(6 / static_cast<double>(shape[0] + shape[1]));
    return rng.uniform(shape, -bound, bound, dtype);
  };
}

double leaky_relu_gain(Arg<double> slope) { return std::sqrt(2 / (1 + slope * slope)); }

Initializer kaiming_uniform(const KaimingOptions& options, Site site) {
  require_setting("init::kaiming_uniform", "gain", options.gain, site);
  return [options](Rng& rng, const Shape& shape, DType dtype) {
    const double bound =
        std::sqrt(3.0) * kaiming_deviation("init::kaiming_uniform", options, shape);
    return rng.uniform(shape, -bound, bound, dtype);
  };
}

Initializer kaiming_normal(const KaimingOptions& options, Site site) {
  require_setting("init::kaiming_normal", "gain", options.gain, site);
  return [options](Rng& rng, const Shape& shape, DType dtype) {
    return rng.normal(shape, 0, kaiming_deviation("init::kaiming_normal", options, shape), dtype);
  };
}

Initializer orthogonal() {
  return [](Rng& rng, const Shape& shape, DType dtype) {
    if (shape.rank() != 2 || shape.size() == 0)
      throw ShapeError("init::orthogonal: the parameter must be a matrix, not " + shape.str(),
                       SiteScope::current());
    const Index block = shape[0] % shape[1] == 0 ? shape[1] : shape[0];
    Tensor result(shape, f64);
    for (Index row = 0; row < shape[0]; row += block)
      draw_orthonormal(rng, block, shape[1], result.begin_update<double>().data() + row * shape[1]);
    return result.to(dtype);
  };
}

Initializer identity(Arg<double> scale, Site site) {
  if (!std::isfinite(scale))
    throw ValueError(fmt::format("init::identity: scale is {}, but has to be finite",
                                 static_cast<double>(scale)),
                     site);
  return [scale = static_cast<double>(scale)](Rng&, const Shape& shape, DType dtype) {
    if (shape.rank() != 2 || shape[1] == 0 || shape[0] % shape[1] != 0)
      throw ShapeError(
          fmt::format("identity: only for square blocks on top of each other, not {}", shape.str()),
          SiteScope::current());
    Tensor result = zeros(shape, dtype);
    dispatch_real(dtype, [&]<class T>() {
      for (Index row = 0; row < shape[0]; ++row)
        result.begin_update<T>()[static_cast<std::size_t>(row * shape[1] + row % shape[1])] =
            static_cast<T>(scale);
    });
    return result;
  };
}

Initializer sparse(Arg<Index> connections, Arg<double> deviation, Site site) {
  if (connections <= 0)
    throw ValueError(fmt::format("init::sparse: the number of connections must be positive, not {}",
                                 static_cast<Index>(connections)),
                     site);
  require_setting("init::sparse", "deviation", deviation, site);
  return [count = static_cast<Index>(connections), deviation = static_cast<double>(deviation)](
             Rng& rng, const Shape& shape, DType dtype) {
    require_matrix("init::sparse", shape);
    if (shape[1] < count)
      throw ShapeError(fmt::format("init::sparse: the units of {} have fewer than {} inputs",
                                   shape.str(), count),
                       SiteScope::current());
    Tensor result = zeros(shape, f64);
    std::vector<Index> inputs(static_cast<std::size_t>(shape[1]));
    std::iota(inputs.begin(), inputs.end(), Index{0});
    double* row = result.begin_update<double>().data();
    for (Index unit = 0; unit < shape[0]; ++unit, row += shape[1]) {
      draw_to_front(rng, count, inputs);
      for (Index k = 0; k < count; ++k)
        row[inputs[static_cast<std::size_t>(k)]] = deviation * rng.normal();
    }
    return result.to(dtype);
  };
}

Initializer per_gate(std::vector<Initializer> blocks, Site site) {
  if (blocks.empty()) throw ValueError("init::per_gate: there is no initializer", site);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    if (!blocks[i])
      throw ValueError(fmt::format("init::per_gate: initializer {} is empty", i), site);
  return [blocks = std::move(blocks)](Rng& rng, const Shape& shape, DType dtype) {
    if (shape.rank() == 0 || shape[0] % std::ssize(blocks) != 0)
      throw ShapeError(fmt::format("init::per_gate: {} is not made of {} blocks of rows",
                                   shape.str(), blocks.size()),
                       SiteScope::current());
    std::vector<Tensor> parts;
    for (const Initializer& init : blocks)
      parts.push_back(init(rng, shape.with(0, shape[0] / std::ssize(blocks)), dtype));
    return concat(parts, 0);
  };
}

}  // namespace reel::nn::init
