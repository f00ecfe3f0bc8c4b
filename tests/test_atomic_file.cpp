#include <doctest/doctest.h>

#include <reel/autograd/error.h>
#include <reel/nn/files/atomic_file.h>

#include "temporary_directory.h"

using namespace reel;
using nn::AtomicFile;
using nn::write_file;

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

TEST_CASE("directory: only one can lock it") {
  const TemporaryDirectory directory;
  {
    nn::Directory first(directory.path()), second(directory.path());
    CHECK(first.lock());
    CHECK(first.lock());
    CHECK(!second.lock());
  }
  CHECK(directory.count() == 0);
  CHECK(nn::Directory(directory.path()).lock());
  CHECK(message_of<FileError>([&] { nn::Directory(directory / "none"); }) ==
        (directory / "none").string() + ": cannot open: No such file or directory");
  CHECK(contains(message_of<FileError>([&] { nn::Directory(directory.file("file", "")); }),
                 "cannot open: Not a directory"));
}

TEST_CASE("atomic file: places where no file can be written") {
  const TemporaryDirectory directory;
  const auto message = [](const std::filesystem::path& path) {
    return message_of<FileError>([&] { write_file(path, "content"); });
  };
  CHECK(message(directory / "none/model") ==
        (directory / "none/model").string() + ": cannot write: No such file or directory");
  CHECK(contains(message(directory.path()), "it is a directory, not a regular file"));
  CHECK(contains(message(directory.file("file", "") / "model"), "cannot write: No"));
  CHECK(contains(message(""), "cannot "));
}

TEST_CASE("atomic file: names of other alphabets") {
  const TemporaryDirectory directory;
  const std::filesystem::path name = u8"\u0441\u043b\u043e\u0432\u0430 \u6587.json";
  write_file(directory.path() / name, "first");
  write_file(directory.path() / name, "second");
  CHECK(content_of(directory.path() / name) == "second");
  CHECK(directory.count() == 1);
  std::u8string of_84_characters;
  for (int i = 0; i < 84; ++i) of_84_characters += u8"\u6587";
  write_file(directory.path() / of_84_characters, "third");
  CHECK(content_of(directory.path() / of_84_characters) == "third");
  CHECK(directory.count() == 2);
  const std::string message =
      message_of<FileError>([&] { write_file(directory.path() / "none" / name, ""); });
  CHECK(contains(message,
                 "\xd1\x81\xd0\xbb\xd0\xbe\xd0\xb2\xd0\xb0 \xe6\x96\x87.json: cannot write"));
}
