#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/argument.h>
#include <reel/autograd/error.h>
#include <reel/autograd/shape.h>

namespace reel::datasets {

/// The labels of a task, such as parts of speech, as numbers: each is its rank among them.
class Labels {
 public:
  /// In the given order. Throws ValueError if there are none, or one is empty or given twice.
  explicit Labels(std::vector<std::string> names, Site site = {});
  /// The distinct labels of some sequences, in the order of their bytes. Throws ValueError if there
  /// are none, or one is empty.
  static Labels of(std::span<const std::vector<std::string>> sequences, Site site = {});

  Index size() const { return static_cast<Index>(names_.size()); }
  const std::vector<std::string>& names() const { return names_; }

  /// The number of a label. Throws ValueError, naming those that there are, if it is none.
  std::int32_t number(std::string_view name, Site site = {}) const;
  /// The numbers of labels. Throws as number() does.
  std::vector<std::int32_t> encode(std::span<const std::string> names, Site site = {}) const;
  /// The label of a number. Throws ValueError unless it is in 0 .. size() - 1.
  const std::string& name(Arg<Index> number, Site site = {}) const;
  /// The labels of numbers. Throws as name() does.
  std::vector<std::string> decode(std::span<const std::int32_t> numbers, Site site = {}) const;

  bool operator==(const Labels&) const = default;

 private:
  std::vector<std::string> names_;
};

}  // namespace reel::datasets
