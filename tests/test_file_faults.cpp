// What files do when calls of a POSIX system fail.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>

#include <reel/autograd/error.h>
#include <reel/nn/files/atomic_file.h>
#include <reel/optim/background_saver.h>

#include "faults.h"
#include "temporary_directory.h"

using namespace reel;
using nn::write_file;
using testing::Faults;
using testing::Injection;

namespace {

optim::RunState small_state() {
  optim::RunState state;
  state.params.tensors["w"] = full({100}, 3);
  state.numbers["step"] = 7;
  return state;
}

struct Save {
  const char* name;
  void (*to)(const std::filesystem::path&);
};
constexpr Save saves[] = {
    {"write_file", [](const auto& path) { write_file(path, std::string(3000, 'n')); }},
    {"save_run_state", [](const auto& path) { optim::save_run_state(path, small_state()); }},
    {"BackgroundSaver",
     [](const auto& path) {
       optim::BackgroundSaver saver;
       saver.save(path, small_state());
       saver.wait();
     }},
};

struct Failure {
  int error;
  const char* reason;  // null: the call is made again
};
constexpr Failure failures[] = {
    {ENOSPC, "No space left on device"}, {EDQUOT, "Disk quota exceeded"},
    {EIO, "Input/output error"},         {EACCES, "Permission denied"},
    {EROFS, "Read-only file system"},    {EINTR, nullptr},
};

// What is at the path of a save.
enum class Before { nothing, file, link };

// Saves while a system call fails, and checks what is there afterwards. Returns whether the save
// made that call.
bool check_failing_call(const Save& save, Before before, const Failure& failure, Faults faults) {
  const TemporaryDirectory directory, other;
  save.to(other / "model");
  const std::string old_content = "old", new_content = content_of(other / "model");
  const auto path = directory / "model";
  if (before == Before::file) directory.file("model", old_content);
  if (before == Before::link)
    std::filesystem::create_symlink(other.file("model", old_content), path);
  std::string message;
  {
    const Injection injection(faults);
    message = message_of<FileError>([&] { save.to(path); });
  }
  const bool failed = message != "nothing was thrown";
  CAPTURE(save.name);
  CAPTURE(static_cast<int>(before));
  CAPTURE(faults.failed);
  CAPTURE(message);
  const bool replaced = !failed || contains(message, "its directory cannot be synced");
  CHECK(std::filesystem::exists(path) == (replaced || before != Before::nothing));
  if (replaced || before != Before::nothing)
    CHECK(content_of(path) == (replaced ? new_content : old_content));
  CHECK(std::filesystem::is_symlink(path) == (before == Before::link));
  CHECK(directory.count() == (std::filesystem::exists(path) ? 1 : 0));
  CHECK(other.count() == 1);
  if (failed) {
    CHECK(message.starts_with(path.string() + ": "));
    CHECK(!contains(message, "\n"));
    REQUIRE(failure.reason != nullptr);
    CHECK(message.ends_with(failure.reason));
  } else if (failure.reason != nullptr && !faults.failed.empty()) {
    CHECK(faults.failed == "close");  // of a directory, or of a file that failed already
  }
  return faults.calls > faults.at;
}

}  // namespace

TEST_CASE(
    "atomic file: whichever system call fails, the file is old or new, and no other is left") {
  int tried = 0;
  for (const Save& save : saves)
    for (const Before before : {Before::nothing, Before::file, Before::link})
      for (const Failure& failure : failures)
        for (const bool and_after : {false, true}) {
          if (and_after && failure.reason == nullptr) continue;  // interrupted for ever
          Faults faults{
              .at = 0, .error = failure.error, .and_after = and_after, .longest_write = 1000};
          for (; check_failing_call(save, before, failure, faults); ++faults.at) ++tried;
        }
  CHECK(tried == 1485);
}

TEST_CASE("atomic file: the calls of a save, each of which can fail") {
  const TemporaryDirectory directory;
  const auto path = directory.file("model", "old");
  std::vector<std::string> calls;
  for (Faults f{.at = 0, .error = EINTR, .longest_write = 1000};; ++f.at) {
    Faults one = f;
    {
      const Injection injection(one);
      write_file(path, std::string(2000, 'x'));
    }
    if (one.failed.empty()) break;
    calls.push_back(one.failed);
    CHECK(one.syncs == 2);
  }
  CHECK(calls == std::vector<std::string>{"fstatat", "readlinkat", "openat", "openat", "fchmod",
                                          "write", "write", "fsync", "close", "renameat", "openat",
                                          "fsync", "close", "close"});
}

TEST_CASE("atomic file: short writes are continued, of a byte at the least") {
  const TemporaryDirectory directory;
  Faults f{.longest_write = 1, .only = "write"};
  const Injection injection(f);
  write_file(directory / "a", "0123456789");
  CHECK(content_of(directory / "a") == "0123456789");
  CHECK(f.calls == 10);
}

TEST_CASE("atomic file: a file system that cannot sync directories is good enough") {
  const TemporaryDirectory directory;
  Faults f{.at = 1, .error = EINVAL, .only = "fsync"};
  const Injection injection(f);
  write_file(directory / "a", "content");
  CHECK(f.calls == 2);
}

TEST_CASE("directory: errors of the system are not mistaken for a lock") {
  const TemporaryDirectory directory;
  nn::Directory first(directory.path()), second(directory.path());
  Faults f{.at = 0, .error = EINTR, .only = "flock"};
  {
    const Injection injection(f);
    CHECK(first.lock());
  }
  CHECK(f.calls == 2);
  f = {.at = 0, .error = ENOLCK, .only = "flock"};
  const Injection injection(f);
  CHECK(message_of<FileError>([&] { second.lock(); }) ==
        directory.path().string() + ": cannot lock: No locks available");
}

TEST_CASE("atomic file: a limit of the real system") {
  const TemporaryDirectory directory;
  const auto path = directory.file("model", "old");
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{100'000, limit.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string message =
      message_of<FileError>([&] { write_file(path, std::string(200'000, 'x')); });
  ::setrlimit(RLIMIT_FSIZE, &limit);
  ::signal(SIGXFSZ, handler);
  CHECK(message == path.string() + ": cannot write: File too large");
  CHECK(content_of(path) == "old");
  CHECK(directory.count() == 1);
}
