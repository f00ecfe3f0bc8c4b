#pragma once

#include <memory>
#include <optional>

#include <reel/datasets/windows.h>

namespace reel::datasets {

/// The windows of a text in order, made on a thread of their own while the caller works on the one
/// before: useful where making them takes time, as with TextTokens. They have the same order and
/// the same numbers as without it.
///
///     PrefetchedWindows prefetched(windows);
///     while (const auto window = prefetched.next()) train(window->inputs, window->targets);
class PrefetchedWindows {
 public:
  /// Begins at window `first`; makes at most `ahead` windows that were not taken yet. What
  /// `windows` refers to must outlive this. Throws ValueError unless 0 <= first <= windows.count()
  /// and ahead is positive.
  explicit PrefetchedWindows(const Windows& windows, Arg<Index> first = 0, Arg<Index> ahead = 2,
                             Site site = {});
  /// Ends the thread, after the window that it is making.
  ~PrefetchedWindows();
  PrefetchedWindows(const PrefetchedWindows&) = delete;
  PrefetchedWindows& operator=(const PrefetchedWindows&) = delete;

  /// The next window; none after the last. Throws what making it threw, then and ever after.
  std::optional<Window> next();

 private:
  class Queue;
  std::unique_ptr<Queue> queue_;
};

}  // namespace reel::datasets
