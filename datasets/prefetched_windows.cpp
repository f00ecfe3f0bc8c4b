#include <reel/datasets/prefetched_windows.h>

#include <fmt/format.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include <reel/autograd/error.h>

namespace reel::datasets {

// The windows that were made and not taken, between the thread and the caller.
class PrefetchedWindows::Queue {
 public:
  Queue(const Windows& windows, Index first, Index ahead)
      : windows_(windows), ahead_(ahead), thread_([this, first] { fill(first); }) {}

  ~Queue() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  std::optional<Window> take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !made_.empty() || finished_; });
    if (made_.empty()) {
      if (failure_) std::rethrow_exception(failure_);
      return std::nullopt;
    }
    Window window = std::move(made_.front());
    made_.pop_front();
    lock.unlock();
    changed_.notify_all();
    return window;
  }

 private:
  void fill(Index first) {
    std::exception_ptr failure;
    try {
      for (Index i = first; i < windows_.count(); ++i) {
        {
          std::unique_lock lock(mutex_);
          changed_.wait(lock, [&] { return stopped_ || std::ssize(made_) < ahead_; });
          if (stopped_) break;
        }
        Window window = windows_[i];
        {
          const std::lock_guard lock(mutex_);
          made_.push_back(std::move(window));
        }
        changed_.notify_all();
      }
    } catch (...) {
      failure = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      failure_ = failure;
      finished_ = true;
    }
    changed_.notify_all();
  }

  const Windows windows_;
  const Index ahead_;
  std::mutex mutex_;
  std::condition_variable changed_;  // anything below
  std::deque<Window> made_;
  bool stopped_ = false, finished_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  // last, as it uses the others
};

PrefetchedWindows::PrefetchedWindows(const Windows& windows, Arg<Index> first, Arg<Index> ahead,
                                     Site site) {
  if (first < 0 || first > windows.count() || ahead < 1)
    throw ValueError(fmt::format("PrefetchedWindows: first is {}, not in 0 .. {}, or ahead is {}, "
                                 "not positive",
                                 Index(first), windows.count(), Index(ahead)),
                     site);
  queue_ = std::make_unique<Queue>(windows, first, ahead);
}

PrefetchedWindows::~PrefetchedWindows() = default;

std::optional<Window> PrefetchedWindows::next() { return queue_->take(); }

}  // namespace reel::datasets
