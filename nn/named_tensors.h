#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include <reel/autograd/params.h>

namespace reel::nn {

/// Tensors by name, with metadata: what a file of weights or a checkpoint holds.
struct NamedTensors {
  std::map<std::string, Tensor, std::less<>> tensors = {};
  std::map<std::string, std::string, std::less<>> metadata = {};
  /// Tensors of a file that could not be read, and why. Whoever asks for one is told.
  std::map<std::string, std::string, std::less<>> unread = {};

  /// The tensor of that name. Throws ValueError when there is none, or it could not be read.
  const Tensor& operator[](std::string_view name) const;
  /// The tensors, read or not, whose names begin with `prefix`, without it; no metadata.
  NamedTensors part(std::string_view prefix) const;
  /// Adds the tensors of another set, read ones only, their names behind `prefix`. Throws
  /// ValueError, having added nothing, when a name is taken.
  void insert(std::string_view prefix, const NamedTensors& other);
};

/// The current values of the parameters under their full names. They share memory with the
/// parameters until those change.
NamedTensors from_params(const Params& params);

/// Gives the parameters the values of the tensors of their full names. The two sets of names must
/// be the same. Throws ValueError for names missing or left over, ShapeError or DTypeError for a
/// tensor of another kind; nothing is changed then.
void load_params(const NamedTensors& source, const Params& params, Site site = {});

}  // namespace reel::nn
