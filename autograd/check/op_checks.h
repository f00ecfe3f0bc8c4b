#pragma once

#include <string>
#include <vector>

#include <reel/autograd/check/reference.h>
#include <reel/autograd/engine/op.h>

/// The checks that every op has to pass, of the library or of a program: the tests loop over the
/// registry with them.
namespace reel::op {

/// What is wrong with an op, one sentence each; empty when it passes.
using Complaints = std::vector<std::string>;

/// A property that every op must have, checked on all of the op's samples.
struct Check {
  const char* name;
  Complaints (*run)(const OpSpec& op) = nullptr;
  Complaints (*run_with)(const OpSpec& op, const Reference& reference) = nullptr;

  Complaints operator()(const OpSpec& op, const Reference& reference = {}) const {
    return run ? run(op) : run_with(op, reference);
  }
};

/// f32, and i32 where the op takes it, agree with f64, and so do the gradients.
Complaints check_precision(const OpSpec& op);
/// Gradients agree with central differences, up to the order of `orders_checked`.
Complaints check_derivatives(const OpSpec& op);
/// Every element of the Jacobian does, where it is small.
Complaints check_jacobian(const OpSpec& op);
/// The gradient of an input does not depend on which others are wanted.
Complaints check_inputs_alone(const OpSpec& op);
/// The same tensor in two places gets the sum of both gradients.
Complaints check_repeated_tensor(const OpSpec& op);
/// Neither pass changes an input.
Complaints check_inputs_unchanged(const OpSpec& op);
/// The same bits in every run, for every number of threads, and with or without a tape.
Complaints check_same_bits(const OpSpec& op);
/// The tape holds nothing that the op did not declare, and nothing at all afterwards.
Complaints check_kept_values(const OpSpec& op);
/// Errors have the right type and name the op, the arguments, their shapes and the call.
Complaints check_bad_arguments(const OpSpec& op);
/// A fused kernel computes what its specification does, values and gradients.
Complaints check_specification(const OpSpec& op);
/// An op without gradient says why.
Complaints check_none(const OpSpec& op);
/// No result depends on what its memory held before.
Complaints check_memory(const OpSpec& op);
/// Calls from several threads at once have the results of one alone.
Complaints check_concurrent_calls(const OpSpec& op);

// These hold values against a formula. Without one the first two pass everything, and the others
// check gradients and bits alone.

/// Values are those of the reference.
Complaints check_values(const OpSpec& op, const Reference& reference);
/// They are at NaN, infinities, zeros and, elementwise, at the largest and smallest numbers, where
/// the gradient is finite if the reference has a slope.
Complaints check_special_values(const OpSpec& op, const Reference& reference);
/// Values and gradients are right in other sizes, 0 and 1 among them, where the op takes them.
Complaints check_shapes(const OpSpec& op, const Reference& reference = {});
/// They are right, with the same bits for every number of threads, in sizes beyond every block and
/// every threshold from which on threads share the work.
Complaints check_sizes(const OpSpec& op, const Reference& reference = {});

inline constexpr Check all_checks[] = {
    {"precision", check_precision},
    {"derivatives", check_derivatives},
    {"jacobian", check_jacobian},
    {"inputs alone", check_inputs_alone},
    {"repeated tensor", check_repeated_tensor},
    {"inputs unchanged", check_inputs_unchanged},
    {"same bits", check_same_bits},
    {"kept values", check_kept_values},
    {"bad arguments", check_bad_arguments},
    {"specification", check_specification},
    {"none", check_none},
    {"memory", check_memory},
    {"concurrent calls", check_concurrent_calls},
    {"values", nullptr, check_values},
    {"special values", nullptr, check_special_values},
    {"shapes", nullptr, check_shapes},
    {"sizes", nullptr, check_sizes},
};

/// To which order the derivatives of an op are checked: 3 where a sample is small and has no kinks
/// near, otherwise 2; 0 for an op without gradient.
int orders_checked(const OpSpec& op);

/// Every check on one op. Without a reference nothing tells right values from wrong ones that have
/// the gradients to match. With REEL_LONG=1 in the environment more shapes and sizes are tried.
Complaints check_op(const OpSpec& op, const Reference& reference = {});

}  // namespace reel::op
