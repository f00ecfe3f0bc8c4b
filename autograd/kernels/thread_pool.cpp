#include <reel/autograd/engine/fork.h>
#include <reel/autograd/error.h>
#include <reel/autograd/kernels/cpu_quota.h>
#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/kernels/thread_pool.h>
#include <reel/autograd/precision.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <fstream>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

namespace reel {
namespace {

using kernels::all_cores;
constexpr int max_threads = all_cores;

// The first line of a file; an empty one where there is no such file.
std::string line_of(const std::string& path) {
  std::string line;
  std::getline(std::ifstream(path), line);
  return line;
}

int cores_of_control_groups() {
  int cores = all_cores;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const auto group = kernels::control_group_of(line);
    if (!group) continue;
    const auto granted = [&](const std::string& directory) {
      return group->version == 2 ? kernels::cores_of_cpu_max(line_of(directory + "/cpu.max"))
                                 : kernels::cores_of_cfs(line_of(directory + "/cpu.cfs_quota_us"),
                                                         line_of(directory + "/cpu.cfs_period_us"));
    };
    const char* const mount = group->version == 2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
    cores = std::min(cores, kernels::least_cores(mount, group->path, granted));
  }
  return cores;
}

int cores_of_affinity() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

int usable_cores() { return std::max(1, std::min(cores_of_affinity(), cores_of_control_groups())); }

// One call of fork_join, on the stack of its caller.
struct Job {
  Index tasks;
  void (*run)(void* f, Index task);
  void* f;
  // The caller's, for all helping threads.
  kernels::FloatMode mode = kernels::float_mode();
  Precision precision = matmul_precision();
  std::atomic<Index> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error{};

  void work() noexcept {
    for (Index task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) try {
        run(f, task);
      } catch (...) {
        next.store(tasks, std::memory_order_relaxed);
        if (!failed.exchange(true)) error = std::current_exception();
      }
  }
};

thread_local bool inside_job = false;

// Marks the thread as working on a job for its lifetime.
class InsideJob {
 public:
  InsideJob() : before_(std::exchange(inside_job, true)) {}
  ~InsideJob() { inside_job = before_; }
  InsideJob(const InsideJob&) = delete;
  InsideJob& operator=(const InsideJob&) = delete;

 private:
  bool before_;
};

// Waits for `done()`, yielding the core. Returns false on timeout.
template <class F>
bool spin_until(F done, std::chrono::microseconds timeout) {
  using Clock = std::chrono::steady_clock;
  for (const auto end = Clock::now() + timeout; !done(); std::this_thread::yield())
    if (Clock::now() > end) return false;
  return true;
}

// Workers sleep until there is a job, help with it, and sleep again. The caller waits only for
// those that have started, so a worker that wakes late costs nothing.
class Pool {
 public:
  Pool(int threads, int cores) : cores_(cores), threads_(threads) {}

  int cores() const { return cores_; }

  int threads() const { return threads_.load(std::memory_order_relaxed); }

  void set_threads(int n) {
    const std::lock_guard one_job(submit_);
    stop();
    threads_.store(n, std::memory_order_relaxed);
  }

  /// For the end of the process: later work, in destructors of static objects, runs on the calling
  /// thread.
  void close() {
    if (inside_job) return;  // exit() was called by a task
    const std::unique_lock one_job(submit_, std::try_to_lock);
    if (!one_job) return;  // or while another thread computes
    stop();
    threads_.store(1, std::memory_order_relaxed);
  }

  /// Returns false, having done nothing, if the pool is busy.
  bool run(Job& job) {
    const std::unique_lock one_job(submit_, std::try_to_lock);
    if (!one_job) return false;
    start();
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      ++generation_;
    }
    const Index wanted = std::min<Index>(std::ssize(workers_), job.tasks - 1);
    for (Index i = 0; i < wanted; ++i) wake_.notify_one();
    job.work();
    {
      const std::lock_guard lock(mutex_);
      job_ = nullptr;
    }
    const auto done = [&] { return working_ == 0; };
    if (!spin_until(done, patience())) {
      std::unique_lock lock(mutex_);
      done_.wait(lock, done);
    }
    return true;
  }

 private:
  void start() {
    while (std::ssize(workers_) < threads() - 1) try {
        workers_.emplace_back([this] { serve(); });
      } catch (const std::system_error&) {
        return;  // no more threads can be created; the existing ones do all the work
      }
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    stopping_ = false;
  }

  // How long a thread stays awake. The parts of a layer, the ops of a step and the steps of a cell
  // in ops follow each other so closely that threads would spend more time going to sleep and
  // waking up, 40 µs each, than working. Where they share cores, another thread wants this one's.
  std::chrono::microseconds patience() const {
    return std::chrono::microseconds(threads() <= cores_ ? 500 : 50);
  }

  void serve() {
    inside_job = true;
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    while (true) {
      lock.unlock();
      spin_until([&] { return stopping_ || generation_ != seen; }, patience());
      lock.lock();
      wake_.wait(lock, [&] { return stopping_ || (job_ && generation_ != seen); });
      if (stopping_) return;
      seen = generation_;
      Job& job = *job_;
      ++working_;
      lock.unlock();
      kernels::set_float_mode(job.mode);
      {
        const PrecisionScope scope(job.precision);
        job.work();
      }
      lock.lock();
      if (--working_ == 0) done_.notify_one();
    }
  }

  const int cores_;
  std::atomic<int> threads_;
  std::vector<std::thread>
      workers_;        // guarded by submit_, which is also held to start and stop them
  std::mutex submit_;  // held while a job runs
  std::mutex mutex_;   // guards the members below
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  std::atomic<std::uint64_t> generation_{0};  // counts the jobs
  std::atomic<int> working_{0};
  std::atomic<bool> stopping_{false};
};

// The process's pool. It is never destroyed, as destructors of static objects may compute. A forked
// child, which has one thread and copies of locks that other threads may have held, creates its
// own.
class ProcessPool {
 public:
  ProcessPool() {
    const int cores = usable_cores();
    new (place_.data()) Pool(cores, cores);
    detail::at_fork(nullptr, nullptr, [] {
      inside_job = false;
      new (place_.data()) Pool(pool().threads(), pool().cores());
    });
  }
  ~ProcessPool() { pool().close(); }
  ProcessPool(const ProcessPool&) = delete;
  ProcessPool& operator=(const ProcessPool&) = delete;

  static Pool& pool() { return *std::launder(reinterpret_cast<Pool*>(place_.data())); }

 private:
  alignas(Pool) static inline constinit std::array<std::byte, sizeof(Pool)> place_{};
};

Pool& thread_pool() {
  static const ProcessPool process;
  return ProcessPool::pool();
}

}  // namespace

void set_threads(Arg<int> n, Site site) {
  if (n < 1 || n > max_threads)
    throw ValueError("set_threads: n is " + std::to_string(int(n)) + ", but must be from 1 to " +
                         std::to_string(max_threads),
                     site);
  if (inside_job)
    throw Error(
        "set_threads: called by a task that threads of the pool are working on; call it before or "
        "after",
        site);
  thread_pool().set_threads(n);
}

int threads() { return thread_pool().threads(); }

namespace kernels {

int usable_threads() { return inside_job ? 1 : threads(); }

void fork_join(Index tasks, void (*run)(void* f, Index task), void* f) {
  const bool alone = tasks <= 1 || usable_threads() <= 1;
  const InsideJob inside;
  Job job{.tasks = tasks, .run = run, .f = f};
  if (alone || !thread_pool().run(job)) job.work();
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace kernels
}  // namespace reel
