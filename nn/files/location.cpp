#include <reel/nn/files/location.h>

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/nn/files/file.h>

namespace reel::nn {

std::string system::utf8(const std::filesystem::path& path) {
  const std::u8string text = path.u8string();
  return {text.begin(), text.end()};
}

std::filesystem::path system::from_utf8(std::string_view text) {
  return std::u8string(text.begin(), text.end());
}

Directory::Directory(std::filesystem::path path)
    : path_(std::move(path)),
      descriptor_(system::open_directory(system::working_directory, path_)) {
  if (descriptor_ == -1)
    throw FileError(
        fmt::format("{}: cannot open: {}", Location(path_).str(), std::strerror(errno)));
}

Directory::~Directory() {
  if (lock_ != -1) system::close(lock_);
  system::close(descriptor_);
}

bool Directory::lock() {
  if (lock_ == -1) lock_ = system::lock(descriptor_);
  if (lock_ != -1) return true;
  if (errno == EWOULDBLOCK) return false;
  throw FileError(fmt::format("{}: cannot lock: {}", Location(path_).str(), std::strerror(errno)));
}

std::filesystem::path Directory::path_now() const {
  const auto here = system::status(descriptor_);
  const auto there = system::status(system::working_directory, path_);
  if (here && there && here->is_same_file(*there)) return path_;
  return system::path_of(descriptor_).value_or(path_);
}

bool Directory::is_deleted() const {
  const auto status = system::status(descriptor_);
  return status && status->links == 0;
}

const int Location::working_directory = system::working_directory;

std::string Location::str() const {
  constexpr std::size_t longest = 300;
  return printable(system::utf8(path_), longest);
}

bool Location::exists() const {
  if (status_of(*this)) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  throw FileError(fmt::format("{}: cannot read: {}", str(), std::strerror(errno)));
}

bool Location::is_link() const { return system::is_link(directory_, name_); }

}  // namespace reel::nn
