#pragma once

#include <concepts>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <reel/autograd/params.h>

namespace reel::nn {

/// Some of a model's parameters, chosen by a pattern of their names or by a predicate: "*.w_hh",
/// `matrices_only`, `[](const Param& p) { return p.shape()[0] > 1000; }`.
///
/// In a pattern `*` stands for any characters, points included, `?` for one, `[ab]` for one of
/// these, `[!ab]` for none of these, `[a-c]` for a range; it has to match the whole name.
class Selection {
 public:
  /// Every parameter.
  Selection() = default;

  template <std::convertible_to<std::string_view> Pattern>
  Selection(const Pattern& pattern) : Selection(std::string_view(pattern)) {}

  template <std::predicate<const Param&> Predicate>
  requires(!std::convertible_to<Predicate, std::string_view>) Selection(const Predicate& predicate)
      : predicate_(predicate) {}

  /// Whether the parameter is one of them.
  bool contains(const Param& param) const { return !predicate_ || predicate_(param); }

  /// Throws ValueError, beginning with `who`, if it contains none of the parameters; for a pattern
  /// it lists the names that there are.
  void require_some(const Params& params, std::string_view who) const;

 private:
  explicit Selection(std::string_view pattern);

  std::optional<std::string> pattern_;
  std::function<bool(const Param&)> predicate_;
};

/// Parameters of two or more axes: weights, but neither biases nor gains, to which weight decay is
/// usually not applied.
inline bool matrices_only(const Param& param) { return param.shape().rank() >= 2; }

}  // namespace reel::nn
