#pragma once

#include <string>
#include <vector>

#include <reel/autograd/check/reference.h>
#include <reel/autograd/engine/op.h>

/// The checks that every op, the library's or a program's own, has to pass: the tests apply them to
/// the whole registry.
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
/// Every element of the Jacobian agrees with differences, if the Jacobian is small.
Complaints check_jacobian(const OpSpec& op);
/// The gradient of an input does not depend on which others are wanted.
Complaints check_inputs_alone(const OpSpec& op);
/// The same tensor in two places gets the sum of both gradients.
Complaints check_repeated_tensor(const OpSpec& op);
/// Neither pass changes an input.
Complaints check_inputs_unchanged(const OpSpec& op);
/// Bit-identical results in every run, for every number of threads, with and without a tape.
Complaints check_same_bits(const OpSpec& op);
/// The tape holds nothing that the op did not declare, and nothing at all afterwards.
Complaints check_kept_values(const OpSpec& op);
/// Errors have the right type and name the op, the arguments, their shapes and the call.
Complaints check_bad_arguments(const OpSpec& op);
/// Each optional argument is given in a sample and absent in another.
Complaints check_optional_arguments(const OpSpec& op);
/// A fused kernel computes what its specification does, values and gradients.
Complaints check_specification(const OpSpec& op);
/// An op without a gradient, such as one whose results are integers, says why.
Complaints check_none(const OpSpec& op);
/// No result depends on what its memory held before.
Complaints check_memory(const OpSpec& op);
/// Concurrent calls from several threads give the results of a single call.
Complaints check_concurrent_calls(const OpSpec& op);

// These compare values with a reference formula. Without one, the first two pass everything, and
// the others check only gradients and bits.

/// Values agree with the reference.
Complaints check_values(const OpSpec& op, const Reference& reference);
/// They also agree at NaN, infinities, zeros and, for elementwise ops, at the largest and smallest
/// numbers; the gradient there is finite if the reference has a slope.
Complaints check_special_values(const OpSpec& op, const Reference& reference);
/// Values and gradients are right for other sizes, including 0 and 1 where the op accepts them.
Complaints check_shapes(const OpSpec& op, const Reference& reference = {});
/// They are right, and bit-identical for every number of threads, at sizes above every block size
/// and every threshold for splitting work across threads.
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
    {"optional arguments", check_optional_arguments},
    {"specification", check_specification},
    {"none", check_none},
    {"memory", check_memory},
    {"concurrent calls", check_concurrent_calls},
    {"values", nullptr, check_values},
    {"special values", nullptr, check_special_values},
    {"shapes", nullptr, check_shapes},
    {"sizes", nullptr, check_sizes},
};

/// The highest order of derivative that is checked: 3 if a sample is small and has no kinks nearby,
/// otherwise 2; 0 for an op without a gradient.
int orders_checked(const OpSpec& op);

/// Runs every check on one op. Without a reference, wrong values with matching gradients go
/// unnoticed. With REEL_LONG=1 in the environment more shapes and sizes are tried.
Complaints check_op(const OpSpec& op, const Reference& reference = {});

}  // namespace reel::op
