#pragma once

#include <vector>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/tensor.h>

/// Derivatives of functions of tensors, with respect to their arguments. The function is made of
/// ops, the fused ones included; parameters that it uses are held fixed.
///
/// If no tape is current, these calls use one of their own, and the results are constants.
/// Otherwise they record on the current tape, so that the results can be differentiated again, also
/// with respect to parameters: a gradient penalty, a third derivative. The inputs are treated as
/// independent variables, whatever they were computed from.
///
/// All throw DTypeError for an i32 input or result (let the function capture integers), and
/// GradientError if f depends on an op without a gradient.
namespace reel {

/// y = f(x₁, x₂, ...) and ∂⟨y, cotangent⟩/∂xᵢ = Jᵢᵀ·cotangent, in the inputs' shapes: one backward
/// pass. Zeros for an input on which y does not depend.
struct VjpResult {
  Tensor value;
  std::vector<Tensor> gradients;
};
/// Throws ShapeError or DTypeError unless the cotangent has the shape and dtype of y.
VjpResult vjp(const TensorFunction& f, const std::vector<Tensor>& inputs, const Tensor& cotangent,
              Site site = {});

/// y = f(x₁, x₂, ...) and its directional derivative Σᵢ Jᵢ·tangentᵢ, in y's shape. The gradient
/// g(u) = Jᵀu is linear in the cotangent u, so the gradient of ⟨g(u), tangents⟩ with respect to u
/// is the product: two backward passes and no forward rules (the double-vjp identity, J. Townsend,
/// "A new trick for calculating Jacobian vector products", 2017).
struct JvpResult {
  Tensor value, tangent;
};
/// Throws ShapeError or DTypeError unless there is one tangent for each input, with its shape and
/// dtype.
JvpResult jvp(const TensorFunction& f, const std::vector<Tensor>& inputs,
              const std::vector<Tensor>& tangents, Site site = {});

/// y = f(x₁, x₂, ...), a single number, its gradients, and the products of the Hessian with the
/// vectors, Σⱼ ∂²y/∂xᵢ∂xⱼ · vectorⱼ, of the inputs' shapes: the gradient of ⟨gradients, vectors⟩
/// (Pearlmutter, "Fast exact multiplication by the Hessian", 1994).
struct HvpResult {
  Tensor value;
  std::vector<Tensor> gradients, products;
};
/// Throws ShapeError if y is not a single number, or as jvp does.
HvpResult hvp(const TensorFunction& f, const std::vector<Tensor>& inputs,
              const std::vector<Tensor>& vectors, Site site = {});

/// ∂yᵢ/∂xⱼ for y = f(x), a matrix [size of y, size of x], both in row-major order: a backward pass
/// for each row.
Tensor jacobian(const TensorFunction& f, const Tensor& x, Site site = {});

/// ∂²y/∂xᵢ∂xⱼ for y = f(x), a single number: a matrix [size of x, size of x]. Throws ShapeError if
/// y is not a single number.
Tensor hessian(const TensorFunction& f, const Tensor& x, Site site = {});

}  // namespace reel
