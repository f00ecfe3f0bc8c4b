#include <fmt/format.h>
#include <fmt/ranges.h>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/axis.h>

namespace reel {
using namespace op;
namespace {

// --- reshape, squeeze and expand ---

struct Target {
  Shape shape;
};

// The gradient of an op that only changes the shape.
constexpr auto back_in_shape =
    rule([](Vjp& v) { v.add(0, [&] { return reshape(v.g(), v.shape()); }); }, keeps_nothing);

REEL_EARLY const Op<Target> reshape_op{{
    .name = "reshape",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Target& to) -> Shape {
      if (in[0].size() != to.shape.size())
        in.fail(fmt::format("{} elements cannot take shape {}", in[0].size(), to.shape.str()));
      return to.shape;
    },
    .forward = shared_input,
    .gradient = back_in_shape,
    .samples = {with_inputs(normal({3, 4})).attr(Target{{2, 6}}),
                with_inputs(normal({1})).attr(Target{{}}),
                with_inputs(normal({})).attr(Target{{1, 1, 1}}),
                with_inputs(normal({0, 3})).attr(Target{{5, 0}})},
}};

struct AxisSet {
  std::uint32_t axes;  // bit mask
};

REEL_EARLY const Op<AxisSet> squeeze_op{{
    .name = "squeeze",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const AxisSet& gone) -> Shape {
      Shape shape = in[0];
      for (int axis = shape.rank() - 1; axis >= 0; --axis) {
        if (!(gone.axes >> axis & 1)) continue;
        if (shape[axis] != 1)
          in.fail(fmt::format("axis {} has {} elements and cannot be removed", axis, shape[axis]));
        shape = shape.erase(axis);
      }
      return shape;
    },
    .forward = shared_input,
    .gradient = back_in_shape,
    .samples = {with_inputs(normal({3, 1, 2})).attr(AxisSet{0b010}),
                with_inputs(normal({1, 5, 1, 1})).attr(AxisSet{0b1101}),
                with_inputs(normal({1})).attr(AxisSet{1}), with_inputs(normal({})).attr(AxisSet{0}),
                with_inputs(normal({0, 1})).attr(AxisSet{0b10})},
}};

REEL_EARLY const Op<Along> expand_op{{
    .name = "expand",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Along& along) -> Shape {
      if (in[0].rank() == Shape::max_rank) in.fail("there cannot be more than 4 axes");
      return in[0].insert(along.axis, 1);
    },
    .forward = shared_input,
    .gradient = back_in_shape,
    .samples = {with_inputs(normal({3, 4})).attr(Along{1}),
                with_inputs(normal({2, 1, 3})).attr(Along{3}),
                with_inputs(normal({})).attr(Along{0}), with_inputs(normal({0})).attr(Along{0})},
}};

// --- permute and transpose ---

// Axis a of the result is axis order[a] of x.
using AxisOrder = std::array<int, Shape::max_rank>;

Shape permuted(const Shape& x, const AxisOrder& order) {
  const auto rank = static_cast<std::size_t>(x.rank());
  std::array<Index, Shape::max_rank> sizes{};
  for (std::size_t axis = 0; axis < rank; ++axis) sizes[axis] = x[order[axis]];
  return Shape(std::span<const Index>(sizes).first(rank));
}

// Writes a row-major matrix from strided elements of x, in square tiles, so that each cache line
// that is read or written is fully used while it is in the cache.
template <class T>
void copy_matrix(const T* x, Index row_stride, Index column_stride, Index rows, Index columns,
                 T* y) {
  constexpr Index tile = 16;
  if (column_stride == 1) {
    for (Index row = 0; row < rows; ++row)
      std::copy_n(x + row * row_stride, columns, y + row * columns);
    return;
  }
  for (Index row0 = 0; row0 < rows; row0 += tile)
    for (Index column0 = 0; column0 < columns; column0 += tile)
      for (Index row = row0; row < std::min(rows, row0 + tile); ++row)
        for (Index column = column0; column < std::min(columns, column0 + tile); ++column)
          y[row * columns + column] = x[row * row_stride + column * column_stride];
}

template <class T>
void permute_values(Ctx<T> c, const AxisOrder& order) {
  // The output's four axes; each steps through x with the stride of its source axis.
  std::array<Index, 4> size{1, 1, 1, 1}, stride{};
  const Shape& out = c.out_shape();
  for (int axis = 0; axis < out.rank(); ++axis) {
    const auto loop = static_cast<std::size_t>(axis + 4 - out.rank());
    size[loop] = out[axis];
    stride[loop] = c.shape(0).stride(order[static_cast<std::size_t>(axis)]);
  }
  const T* x = c.in(0).data();
  T* y = c.out().data();
  for (Index i = 0; i < size[0]; ++i)
    for (Index j = 0; j < size[1]; ++j, y += size[2] * size[3])
      copy_matrix(x + i * stride[0] + j * stride[1], stride[2], stride[3], size[2], size[3], y);
}

struct Permutation {
  AxisOrder order;
};

REEL_EARLY const Op<Permutation> permute_op{{
    .name = "permute",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Permutation& p) -> Shape {
      return permuted(in[0], p.order);
    },
    .forward = []<class T>(Ctx<T> c, const Permutation& p) { permute_values(c, p.order); },
    .gradient = rule(
        [](Vjp& v, const Permutation& p) {
          AxisOrder inverse{};
          const int rank = v.shape().rank();
          for (int axis = 0; axis < rank; ++axis)
            inverse[static_cast<std::size_t>(p.order[static_cast<std::size_t>(axis)])] = axis;
          v.add(0, [&] {
            return permute(v.g(), std::span(inverse).first(static_cast<std::size_t>(rank)));
          });
        },
        keeps_nothing),
    .samples = {with_inputs(normal({2, 3, 4})).attr(Permutation{{2, 0, 1}}),
                with_inputs(normal({2, 3, 1, 5})).attr(Permutation{{3, 1, 0, 2}}),
                with_inputs(normal({3, 4})).attr(Permutation{{0, 1}}),
                with_inputs(normal({})).attr(Permutation{}),
                with_inputs(normal({2, 0, 3})).attr(Permutation{{1, 2, 0}})},
}};

struct AxisPair {
  int first, second;

  AxisOrder order() const {
    AxisOrder order{0, 1, 2, 3};
    std::swap(order[static_cast<std::size_t>(first)], order[static_cast<std::size_t>(second)]);
    return order;
  }
};

REEL_EARLY const Op<AxisPair> transpose_op{{
    .name = "transpose",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const AxisPair& axes) -> Shape {
      return permuted(in[0], axes.order());
    },
    .forward = []<class T>(Ctx<T> c, const AxisPair& axes) { permute_values(c, axes.order()); },
    .gradient = rule(
        [](Vjp& v, const AxisPair& axes) {
          v.add(0, [&] { return transpose(v.g(), axes.first, axes.second); });
        },
        keeps_nothing),
    .samples = {with_inputs(normal({3, 4})).attr(AxisPair{0, 1}),
                with_inputs(normal({2, 3, 1, 5})).attr(AxisPair{1, 3}),
                with_inputs(normal({2, 3, 4})).attr(AxisPair{1, 1}),
                with_inputs(normal({0, 3})).attr(AxisPair{0, 1})},
}};

// --- broadcast_to and sum_to: each is the other's adjoint ---

bool stretches_to(const Shape& small, const Shape& large) {
  if (small.rank() > large.rank()) return false;
  for (int axis = 1; axis <= small.rank(); ++axis) {
    const Index s = small[small.rank() - axis];
    if (s != 1 && s != large[large.rank() - axis]) return false;
  }
  return true;
}

REEL_EARLY const Op<Target> broadcast_to_op{{
    .name = "broadcast_to",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Target& to) -> Shape {
      if (!stretches_to(in[0], to.shape))
        in.fail(fmt::format("it does not broadcast to {}", to.shape.str()));
      return to.shape;
    },
    .forward =
        []<class T>(Ctx<T> c) {
          const T* x = c.in(0).data();
          T* y = c.out().data();
          const kernels::BroadcastPlan<1> plan(c.out_shape(), {&c.shape(0)});
          plan.each_row([&](const auto& offset, Index n, const auto& stride) {
            for (Index i = 0; i < n; ++i) y[i] = x[offset[0] + i * stride[0]];
            y += n;
          });
        },
    .gradient =
        rule([](Vjp& v) { v.add(0, [&] { return sum_to(v.g(), v.shape()); }); }, keeps_nothing),
    .samples = {with_inputs(normal({4})).attr(Target{{3, 4}}),
                with_inputs(normal({2, 1, 3})).attr(Target{{5, 2, 4, 3}}),
                with_inputs(normal({})).attr(Target{{2, 3}}),
                with_inputs(normal({1, 3})).attr(Target{{0, 3}})},
}};

REEL_EARLY const Op<Target> sum_to_op{{
    .name = "sum_to",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Target& to) -> Shape {
      if (!stretches_to(to.shape, in[0]))
        in.fail(fmt::format("{} does not broadcast to it", to.shape.str()));
      return to.shape;
    },
    .forward =
        []<class T>(Ctx<T> c) {
          kernels::broadcast_sum(c.shape(0), c.in(0).data(), c.out_shape(), c.out().data());
        },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return broadcast_to(v.g(), v.shape()); }); },
                     keeps_nothing),
    .samples = {with_inputs(normal({3, 4})).attr(Target{{4}}),
                with_inputs(normal({3, 4})).attr(Target{{3, 1}}),
                with_inputs(normal({2, 3, 40})).attr(Target{{}}),
                with_inputs(normal({5, 2, 4, 3})).attr(Target{{2, 1, 3}}),
                with_inputs(normal({0, 3})).attr(Target{{3}})},
}};

// --- tril and triu ---

struct Diagonal {
  Index k;  // above the main diagonal
};

constexpr auto matrices_shape = [](const Arguments& in) -> Shape {
  if (in[0].rank() < 2) in.fail("there must be rows and columns");
  return in[0];
};

// Copies the part of each matrix that ends (tril) or begins (triu) at the k-th diagonal.
template <bool lower, class T>
void copy_triangle(Ctx<T> c, Index k) {
  const Shape& shape = c.shape(0);
  const Index rows = shape[shape.rank() - 2], columns = shape[shape.rank() - 1];
  const T* x = c.in(0).data();
  T* y = c.out().data();
  const T* const end = y + c.out().size();
  for (Index row = 0; y != end; row = row + 1 == rows ? 0 : row + 1, x += columns, y += columns) {
    const Index border = std::clamp<Index>(row + k + (lower ? 1 : 0), 0, columns);
    std::copy_n(x, columns, y);
    std::fill(lower ? y + border : y, lower ? y + columns : y + border, T(0));
  }
}

// The k-th diagonal, clamped to the last one outside of the matrix.
Diagonal diagonal_of(const Shape& shape, Index k) {
  if (shape.rank() < 2) return {0};
  return {std::clamp<Index>(k, -shape[shape.rank() - 2], shape[shape.rank() - 1])};
}

REEL_EARLY const Samples<Diagonal> triangle_samples{
    with_inputs(normal({3, 4})).attr(Diagonal{0}),
    with_inputs(normal({4, 3})).attr(Diagonal{1}),
    with_inputs(normal({2, 3, 3})).attr(Diagonal{-1}),
    with_inputs(normal({1, 5})).attr(Diagonal{-6}),
    with_inputs(normal({2, 0, 3})).attr(Diagonal{0}),
};

REEL_EARLY const Op<Diagonal> tril_op{{
    .name = "tril",
    .arguments = {"x"},
    .shape = matrices_shape,
    .forward = []<class T>(Ctx<T> c, const Diagonal& d) { copy_triangle<true>(c, d.k); },
    .gradient = rule([](Vjp& v, const Diagonal& d) { v.add(0, [&] { return tril(v.g(), d.k); }); },
                     keeps_nothing),
    .samples = triangle_samples,
}};

REEL_EARLY const Op<Diagonal> triu_op{{
    .name = "triu",
    .arguments = {"x"},
    .shape = matrices_shape,
    .forward = []<class T>(Ctx<T> c, const Diagonal& d) { copy_triangle<false>(c, d.k); },
    .gradient = rule([](Vjp& v, const Diagonal& d) { v.add(0, [&] { return triu(v.g(), d.k); }); },
                     keeps_nothing),
    .samples = triangle_samples,
}};

}  // namespace

Tensor reshape(const Tensor& x, const Shape& shape, Site site) {
  return reshape_op({&x}, {shape}, site);
}

Tensor reshape(const Tensor& x, std::initializer_list<Index> shape, Site site) {
  PoolVector<Index> sizes(shape);
  const auto open = std::ranges::find(sizes, -1);
  if (open == sizes.end()) return reshape(x, Shape(std::span<const Index>(sizes), site), site);
  const auto fail = [&](std::string_view why) {
    throw ShapeError(fmt::format("reshape: {} elements cannot take shape [{}]{}; x is {} {}",
                                 x.size(), fmt::join(shape.begin(), shape.end(), ", "), why,
                                 name_of(x.dtype()), x.shape().str()),
                     site);
  };
  *open = 1;
  if (std::ranges::any_of(sizes, [](Index size) { return size < 0; }))
    fail(": only one size may be -1, and none less");
  if (sizes.size() > Shape::max_rank) fail(": there are at most 4 axes");
  const Index known = Shape(std::span<const Index>(sizes)).size();
  if (known == 0) fail(": with a size of 0 the size for -1 is ambiguous");
  if (x.size() % known != 0) fail("");
  *open = x.size() / known;
  return reshape(x, Shape(std::span<const Index>(sizes)), site);
}

Tensor squeeze(const Tensor& x, Arg<int> axis, Site site) {
  return squeeze_op({&x}, {1u << axis_of(x, axis, "squeeze", site)}, site);
}

Tensor squeeze(const Tensor& x, Site site) {
  std::uint32_t axes = 0;
  for (int axis = 0; axis < x.rank(); ++axis)
    if (x.shape()[axis] == 1) axes |= 1u << axis;
  return squeeze_op({&x}, {axes}, site);
}

Tensor expand(const Tensor& x, Arg<int> axis, Site site) {
  return expand_op({&x}, {axis_of(x, axis, "expand", site, 1)}, site);
}

Tensor permute(const Tensor& x, std::span<const int> axes, Site site) {
  AxisOrder order{};
  std::uint32_t seen = 0;
  for (std::size_t a = 0; a < std::min<std::size_t>(axes.size(), Shape::max_rank); ++a) {
    order[a] = axis_of(x, axes[a], "permute", site);
    seen |= 1u << order[a];
  }
  if (axes.size() != static_cast<std::size_t>(x.rank()) || seen != (1u << x.rank()) - 1)
    throw ShapeError(
        fmt::format("permute: axes ({}) do not name each of the {} axes of shape {} once",
                    fmt::join(axes, ", "), x.rank(), x.shape().str()),
        site);
  return permute_op({&x}, {order}, site);
}

Tensor permute(const Tensor& x, std::initializer_list<Arg<int>> axes, Site site) {
  const PoolVector<int> order(axes.begin(), axes.end());
  return permute(x, std::span<const int>(order), site);
}

Tensor transpose(const Tensor& x, Arg<int> axis0, Arg<int> axis1, Site site) {
  return transpose_op(
      {&x}, {axis_of(x, axis0, "transpose", site), axis_of(x, axis1, "transpose", site)}, site);
}

Tensor broadcast_to(const Tensor& x, const Shape& shape, Site site) {
  return broadcast_to_op({&x}, {shape}, site);
}

Tensor sum_to(const Tensor& x, const Shape& shape, Site site) {
  return sum_to_op({&x}, {shape}, site);
}

Tensor tril(const Tensor& x, Arg<Index> k, Site site) {
  return tril_op({&x}, diagonal_of(x.shape(), k), site);
}

Tensor triu(const Tensor& x, Arg<Index> k, Site site) {
  return triu_op({&x}, diagonal_of(x.shape(), k), site);
}

}  // namespace reel

namespace reel::op::linked {
void shape() {}
}  // namespace reel::op::linked
