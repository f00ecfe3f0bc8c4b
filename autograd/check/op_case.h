#pragma once

#include <fmt/format.h>

#include <functional>
#include <optional>

#include <reel/autograd/check/op_checks.h>

// What the checks of ops share: an op with the inputs of one of its samples.
namespace reel::op::detail {

inline const Site call_site("caller.cpp", 7);

bool same_bits(const Tensor& a, const Tensor& b);
bool same_bits(std::span<const Tensor> a, std::span<const Tensor> b);
/// The largest difference, relative to the largest element of b or to 1.
double relative_difference(const Tensor& a, const Tensor& b);
/// The floating-point tensors converted to another dtype.
std::vector<Tensor> converted(std::span<const Tensor> inputs, DType dtype);
inline bool is_given_real(const Tensor& x) { return x.defined() && is_real(x.dtype()); }
/// Whether REEL_LONG is set: all variants are tried, not only the quick ones.
bool long_mode();

/// An op with one of its samples.
struct Case {
  const OpSpec& op;
  OpSpec::Sample sample;
  std::string title;
  std::vector<Tensor> inputs;  // f64 or i32; undefined where absent

  Tensors run(std::span<const Tensor> x) const;
  bool real(std::size_t i) const { return is_given_real(inputs[i]); }
  Index elements() const;
  /// All floating-point outputs as one tensor.
  Tensor joined(std::span<const Tensor> x) const;
  /// The gradients of the floating-point inputs for which `wanted` holds, with a random seed;
  /// `output` is the index of one output, or -1 for all.
  std::vector<Tensor> gradients(std::span<const Tensor> x,
                                const std::function<bool(std::size_t)>& wanted, int output = -1,
                                bool create_graph = false) const;
  std::vector<Tensor> gradients(std::span<const Tensor> x) const;
  bool differentiable() const;
  /// What is wrong with the gradients along one random direction, at first order: much less than
  /// check_gradients finds, in few evaluations; empty when they pass, or differences say nothing.
  std::string check_direction() const;
};

std::vector<Case> cases_of(const OpSpec& op);

using Complain = std::function<void(const std::string&)>;

/// Runs a check on a case; an exception is reported as a complaint.
template <class F>
void check_case(const Case& c, Complaints& complaints, F f) {
  const auto complain = [&](const std::string& what) {
    complaints.push_back(fmt::format("{}: {}", c.title, what));
  };
  try {
    f(c, complain);
  } catch (const std::exception& e) {
    complain(fmt::format("throws: {}", e.what()));
  }
}

/// Runs a check on each sample.
template <class F>
Complaints over_cases(const OpSpec& op, F f) {
  Complaints complaints;
  if (op.samples.empty()) complaints.push_back(fmt::format("{}: there are no samples", op.name));
  for (const Case& c : cases_of(op)) check_case(c, complaints, f);
  return complaints;
}

/// A resized sample: every axis of size s becomes one of size `size(s)`, as do index limits. Empty
/// if the sample consists of fixed numbers.
std::optional<OpSpec::Sample> resized(const Case& c, const std::function<Index(Index)>& size);
/// The total number of elements of inputs and outputs; empty if the op refuses the shapes.
std::optional<Index> elements_of(const OpSpec& op, const OpSpec::Sample& sample);
/// Draws inputs, normal ones scaled by `scale`; empty if the op refuses their values.
std::optional<Case> drawn(const OpSpec& op, const OpSpec::Sample& sample, double scale = 1);

}  // namespace reel::op::detail
