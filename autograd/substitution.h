#pragma once

#include <memory>
#include <utility>
#include <vector>

#include <reel/autograd/params.h>

namespace reel {

/// While it exists, parameters have other values on this thread: `Param::tensor` and `value` return
/// the given tensors, which may be recorded on a tape. The parameters themselves do not change, and
/// cannot be changed until it ends. Substitutions nest; the innermost counts. What most programs
/// call is nn::functional_call.
class Substitution {
 public:
  using Values = std::vector<std::pair<std::shared_ptr<ParamEntry>, Tensor>>;

  /// Throws ValueError for an undefined tensor, ShapeError or DTypeError for one of another shape
  /// or dtype than its parameter.
  explicit Substitution(Values values, Site site = {});
  ~Substitution();
  Substitution(const Substitution&) = delete;
  Substitution& operator=(const Substitution&) = delete;

  /// What parameters have in place of their values on this thread now.
  static Values current();

 private:
  friend class Param;
  friend class NoSubstitution;
  static const Tensor* find(ParamEntry* entry);

  Values values_;
  const Substitution* outer_;
};

/// While it exists, no Substitution of this thread counts: for what is computed again as it was.
class NoSubstitution {
 public:
  /// From now on.
  NoSubstitution();
  ~NoSubstitution();
  NoSubstitution(const NoSubstitution&) = delete;
  NoSubstitution& operator=(const NoSubstitution&) = delete;

 private:
  const Substitution* before_;
};

}  // namespace reel
