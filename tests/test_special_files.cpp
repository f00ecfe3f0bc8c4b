// Links, permissions, devices, pipes and directories renamed while they are open, of POSIX systems.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include <reel/autograd/error.h>
#include <reel/autograd/ops.h>
#include <reel/datasets/idx.h>
#include <reel/datasets/piano_roll.h>
#include <reel/datasets/text.h>
#include <reel/datasets/text_tokens.h>
#include <reel/nn/files/atomic_file.h>
#include <reel/nn/files/safetensors.h>

#include "temporary_directory.h"

using namespace reel;
using namespace reel::datasets;
using nn::write_file;

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

TEST_CASE("atomic file: devices, and directories without permission") {
  const TemporaryDirectory directory;
  const auto message = [](const std::filesystem::path& path) {
    return message_of<FileError>([&] { write_file(path, "content"); });
  };
  CHECK(contains(message("/dev/full"), "it is a device, not a regular file"));
  CHECK(std::filesystem::is_character_file("/dev/full"));
  CHECK(contains(message(directory.file("file", "") / "model"), "cannot write: Not a directory"));
  if (::geteuid() != 0) {
    std::filesystem::permissions(
        directory.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
    CHECK(contains(message(directory / "model"), "cannot write: Permission denied"));
    std::filesystem::permissions(directory.path(), std::filesystem::perms::owner_all);
  }
}

TEST_CASE("atomic file: it is written in its directory even if that is renamed") {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory / "m1");
  const auto model = directory.file("m1/model", "old");
  const nn::Directory open(directory / "m1");
  nn::AtomicFile file(model);
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

TEST_CASE("safetensors: devices and pipes are not read, nor devices written") {
  const TemporaryDirectory directory;
  const auto message = [](const std::filesystem::path& path) {
    return message_of<FileError>([&] { nn::load_safetensors(path); });
  };
  CHECK(contains(message("/dev/null"), "cannot read: it is a device, not a regular file"));
  CHECK(contains(message("/dev/zero"), "cannot read: it is a device"));
  const auto pipe = directory / "pipe\x1b\n";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(contains(message(pipe), "pipe\\u001b\\n: cannot read: it is a pipe, not a regular file"));
  nn::NamedTensors content;
  content.tensors = {{"w", ones({1})}};
  CHECK_THROWS_AS(nn::save_safetensors("/dev/full", content), FileError);
}

TEST_CASE("data: devices are not read") {
  const auto message = [](auto read) { return message_of<FileError>(read); };
  CHECK(contains(message([&] { read_idx_images("/dev/zero"); }), "a device, not a regular file"));
  CHECK(contains(message([&] { read_piano_rolls("/dev/zero"); }), "is a device"));
  CHECK(contains(message([&] { TextTokens("/dev/zero", Vocabulary("ab", TextMode::utf8)); }),
                 "a device"));
  for (const TextMode mode : {TextMode::utf8, TextMode::bytes})
    CHECK(contains(message([&] { read_text("/dev/zero", mode); }), "/dev/zero: is a device"));
}

TEST_CASE("text: a pipe is read to its end") {
  const TemporaryDirectory directory;
  const auto path = directory / "pipe";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  std::thread writer([&] { std::ofstream(path) << "through a pipe"; });
  CHECK(read_text(path) == "through a pipe");
  writer.join();
}

TEST_CASE("text: a file without permission to read") {
  if (::geteuid() == 0) return;
  const TemporaryDirectory directory;
  const auto locked = directory.file("locked", "text");
  std::filesystem::permissions(locked, std::filesystem::perms::none);
  CHECK(contains(message_of<FileError>([&] { read_text(locked); }),
                 "cannot read: Permission denied"));
}
