#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include <reel/autograd/params.h>

namespace reel::nn {

/// Tensors by name, with metadata: the content of a weight file or a checkpoint.
struct NamedTensors {
  std::map<std::string, Tensor, std::less<>> tensors = {};
  std::map<std::string, std::string, std::less<>> metadata = {};
  /// Tensors of a file that could not be read, and why. Accessing one throws with that reason.
  std::map<std::string, std::string, std::less<>> unread = {};

  /// The tensor of that name. Throws ValueError if there is none, or it could not be read.
  const Tensor& operator[](const ParamName& name) const;
  /// The tensors, read or not, whose names begin with `prefix`, without it; no metadata.
  NamedTensors part(std::string_view prefix) const;
  /// Adds the tensors of another set, except unread ones, with `prefix` before their names. Throws
  /// ValueError, having added nothing, if a name is taken.
  void insert(std::string_view prefix, const NamedTensors& other, Site site = {});
};

/// The f64 scalar of that name in the state of something. Throws ValueError if it is missing, of
/// another kind, or not in [low, high].
double number_in(const NamedTensors& state, std::string_view name, double low, double high,
                 Site site = {});
/// The same for a whole number from 0 on.
Index count_in(const NamedTensors& state, std::string_view name, Site site = {});

/// The current values of the parameters under their full names. They share memory with the
/// parameters until those change (copy on write), except with one that `edit` gave a span of.
NamedTensors from_params(const Params& params);

/// Sets the parameters to the tensors with their full names. The two sets of names must be equal.
/// Throws ValueError for missing or unexpected names, ShapeError or DTypeError for a tensor of
/// another shape or dtype, having changed nothing.
void load_params(const NamedTensors& source, const Params& params, Site site = {});

}  // namespace reel::nn
