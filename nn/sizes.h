#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include <reel/autograd/params.h>

namespace reel::nn {

/// What a layer's constructor takes for its store, or its part of one: it lends the line of the
/// call to all errors until the layer is made. Where a container makes the call, as in
/// `layers.emplace_back(p / "0", 3, 4)`, that is the line that named the part.
class ModuleParams : public Params {
 public:
  /// Lends the line of this call to errors.
  ModuleParams(const Params& params, Site site = {});

 private:
  SiteScope scope_;
};

/// What the constructor of a layer calls first: says in the store what module this part is, for
/// files of other frameworks. Throws ValueError, naming the module, its place in the store and the
/// size, unless every size is positive. Returns the store, so that it can be called before members
/// are constructed.
const ModuleParams& begin_module(const ModuleParams& p, std::string_view module,
                                 std::initializer_list<std::pair<const char*, Index>> sizes);

/// "Lstm encoder.0", for messages.
std::string module_name(const Params& p, std::string_view module);

/// Throws ShapeError, naming the module of parameter `w`, unless the last axis of x has `size`
/// elements. An undefined tensor is left for the op to refuse.
void require_features(const char* module, const Param& w, const Tensor& x, Index size, Site site);

/// Throws ValueError for an undefined x, ShapeError unless it is [T, B, D] with T > 0.
void require_sequence(const char* module, const Tensor& x);

/// Throws ValueError unless 0 <= rate < 1.
void require_rate(const char* module, double rate, Site site);

}  // namespace reel::nn
