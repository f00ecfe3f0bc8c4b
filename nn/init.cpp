#include <reel/nn/init.h>

#include <Eigen/QR>

#include <cmath>

#include <reel/autograd/matrix.h>

namespace reel::nn::init {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Matrix orthonormal(Rng& rng, Index rows, Index columns) {
  const Tensor draws = rng.normal({std::max(rows, columns), std::min(rows, columns)}, 0, 1, f64);
  const Eigen::HouseholderQR<Matrix> qr(matrix<double>(draws));
  Matrix q = qr.householderQ() * Matrix::Identity(draws.shape()[0], draws.shape()[1]);
  // The decomposition's signs are those of the diagonal of R; dividing them out makes q uniform.
  for (Index c = 0; c < q.cols(); ++c)
    if (qr.matrixQR()(c, c) < 0) q.col(c) *= -1;
  return rows >= columns ? q : Matrix(q.transpose());
}

}  // namespace

Initializer constant(double value) {
  return [value](Rng&, const Shape& shape, DType dtype) { return full(shape, value, dtype); };
}

Initializer uniform(double bound) {
  return [bound](Rng& rng, const Shape& shape, DType dtype) {
    return rng.uniform(shape, -bound, bound, dtype);
  };
}

Initializer normal(double deviation) {
  return [deviation](Rng& rng, const Shape& shape, DType dtype) {
    return rng.normal(shape, 0, deviation, dtype);
  };
}

Initializer xavier_uniform() {
  return [](Rng& rng, const Shape& shape, DType dtype) {
    if (shape.rank() != 2)
      throw ShapeError("init::xavier_uniform: the parameter must be a matrix, not " + shape.str());
    const double bound = std::sqrt(6 / static_cast<double>(shape[0] + shape[1]));
    return rng.uniform(shape, -bound, bound, dtype);
  };
}

Initializer orthogonal() {
  return [](Rng& rng, const Shape& shape, DType dtype) {
    if (shape.rank() != 2 || shape.size() == 0)
      throw ShapeError("init::orthogonal: the parameter must be a matrix, not " + shape.str());
    const Index block = shape[0] % shape[1] == 0 ? shape[1] : shape[0];
    Tensor result(shape, f64);
    Eigen::Map<Matrix> all(result.edit<double>().data(), shape[0], shape[1]);
    for (Index row = 0; row < shape[0]; row += block)
      all.middleRows(row, block) = orthonormal(rng, block, shape[1]);
    return result.to(dtype);
  };
}

}  // namespace reel::nn::init
