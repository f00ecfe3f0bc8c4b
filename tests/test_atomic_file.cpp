#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

#include <reel/autograd/error.h>
#include <reel/nn/files/atomic_file.h>
#include <reel/optim/background_saver.h>

#include "faults.h"
#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using nn::AtomicFile;
using nn::write_file;
using testing::Faults;
using testing::Injection;

TEST_CASE("atomic file: content is written and replaced") {
  const TemporaryDirectory directory;
  const auto path = directory / "config.json";
  write_file(path, "first");
  CHECK(content_of(path) == "first");
  AtomicFile file(path);
  file.write("sec");
  file.write("ond");
  CHECK(content_of(path) == "first");
  file.commit();
  CHECK(content_of(path) == "second");
  CHECK_THROWS_AS(file.write("more"), FileError);
  write_file(path, "");
  CHECK(content_of(path).empty());
  CHECK(directory.count() == 1);
}

TEST_CASE("atomic file: without commit nothing happens") {
  const TemporaryDirectory directory;
  const auto path = directory.file("a", "old");
  {
    AtomicFile file(path);
    file.write("new");
    CHECK(directory.count() == 2);
  }
  CHECK(content_of(path) == "old");
  CHECK(directory.count() == 1);
}

TEST_CASE("atomic file: a path in the current directory") {
  const TemporaryDirectory directory;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  write_file("here", "content");
  std::filesystem::current_path(before);
  CHECK(content_of(directory / "here") == "content");
}

TEST_CASE("atomic file: the longest name that a file may have") {
  const TemporaryDirectory directory;
  const std::string name(255, 'n');
  write_file(directory / name, "content");
  CHECK(content_of(directory / name) == "content");
}

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

TEST_CASE("atomic file: symbolic links are followed, also to a file that is not there yet") {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory / "far");
  const auto model = directory.file("far/model", "old");
  std::filesystem::create_symlink("far/model", directory / "link");
  std::filesystem::create_symlink(directory / "link", directory / "link of link");
  write_file(directory / "link of link", "new");
  CHECK(content_of(model) == "new");
  CHECK(std::filesystem::is_symlink(directory / "link"));
  std::filesystem::create_symlink("far/later", directory / "early");
  write_file(directory / "early", "content");
  CHECK(content_of(directory / "far/later") == "content");
  CHECK(directory.count() == 4);
  std::filesystem::create_symlink("round", directory / "round");
  CHECK_THROWS_AS(write_file(directory / "round", "content"), FileError);
}

TEST_CASE("atomic file: permissions are kept") {
  const TemporaryDirectory directory;
  const auto path = directory.file("a", "old");
  using std::filesystem::perms;
  for (const perms mode : {perms(0600), perms(0666), perms(0440)}) {
    std::filesystem::permissions(path, mode);
    write_file(path, "new");
    CHECK(std::filesystem::status(path).permissions() == mode);
  }
}

TEST_CASE("atomic file: it is written in its directory even if that is renamed") {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory / "m1");
  const auto model = directory.file("m1/model", "old");
  const nn::Directory open(directory / "m1");
  AtomicFile file(model);
  file.write("first");
  std::filesystem::rename(directory / "m1", directory / "m2");
  CHECK(open.path_now() == std::filesystem::canonical(directory / "m2"));
  std::filesystem::create_directory(directory / "m1");
  directory.file("m1/model", "another");
  file.commit();
  CHECK(content_of(directory / "m2/model") == "first");
  write_file({open, "model"}, "second");
  CHECK(content_of(directory / "m2/model") == "second");
  CHECK(content_of(model) == "another");
  CHECK(nn::Location(open, "model").exists());
  CHECK(nn::Location(open, "model").str() == model.string());
}

TEST_CASE("atomic file: only leftovers of killed processes are removed") {
  const TemporaryDirectory directory;
  for (const char* name :
       {".model.12-3.tmp", ".model.tmp", ".model.mine.tmp", ".model.1-.tmp", ".model.-1.tmp",
        ".model.1-2-3.tmp", ".model.a1-1.tmp", ".models.1-1.tmp", "model", "model.tmp"})
    directory.file(name, "");
  AtomicFile::remove_leftovers(directory / "model");
  CHECK(!std::filesystem::exists(directory / ".model.12-3.tmp"));
  CHECK(directory.count() == 9);
  AtomicFile::remove_leftovers(directory / "none/model");
}

TEST_CASE("directory: only one can lock it, and errors of the system are not mistaken for a lock") {
  const TemporaryDirectory directory;
  nn::Directory first(directory.path()), second(directory.path());
  Faults f{.at = 0, .error = EINTR, .only = "flock"};
  {
    const Injection injection(f);
    CHECK(first.lock());
  }
  CHECK(f.calls == 2);
  CHECK(!second.lock());
  f = {.at = 0, .error = ENOLCK, .only = "flock"};
  const Injection injection(f);
  CHECK(message_of<FileError>([&] { second.lock(); }) ==
        directory.path().string() + ": cannot lock: No locks available");
  CHECK(message_of<FileError>([&] { nn::Directory(directory / "none"); }) ==
        (directory / "none").string() + ": cannot open: No such file or directory");
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

TEST_CASE("atomic file: places where no file can be written") {
  const TemporaryDirectory directory;
  const auto message = [](const std::filesystem::path& path) {
    return message_of<FileError>([&] { write_file(path, "content"); });
  };
  CHECK(message(directory / "none/model") ==
        (directory / "none/model").string() + ": cannot write: No such file or directory");
  CHECK(contains(message(directory.path()), "it is a directory, not a regular file"));
  CHECK(contains(message("/dev/full"), "it is a device, not a regular file"));
  CHECK(std::filesystem::is_character_file("/dev/full"));
  CHECK(contains(message(directory.file("file", "") / "model"), "cannot write: Not a directory"));
  CHECK(contains(message(""), "cannot "));
  if (::geteuid() != 0) {
    std::filesystem::permissions(
        directory.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
    CHECK(contains(message(directory / "model"), "cannot write: Permission denied"));
    std::filesystem::permissions(directory.path(), std::filesystem::perms::owner_all);
  }
}

namespace {

[[noreturn]] void overwrite_forever(const std::filesystem::path& path) {
  try {
    for (char c = 'a';; c = c == 'z' ? 'a' : static_cast<char>(c + 1))
      write_file(path, std::string(50'000, c));
  } catch (const Error&) {
    ::_exit(1);
  }
}

}  // namespace

TEST_CASE("atomic file: a process killed while it writes leaves the old or the new content") {
  const TemporaryDirectory directory;
  const auto path = directory.file("model", std::string(50'000, 'a'));
  for (Index round = 0; round < testing::rounds(20, 2000); ++round) {
    const pid_t child = ::fork();
    if (child == 0) overwrite_forever(path);
    ::usleep(static_cast<useconds_t>(1000 + 700 * (round % 20)));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    const std::string content = content_of(path);
    CHECK(content == std::string(50'000, content[0]));
  }
}
