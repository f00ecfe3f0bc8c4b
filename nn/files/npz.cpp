#include <fmt/format.h>
#include <zip.h>

#include <algorithm>
#include <memory>
#include <vector>

#include <reel/autograd/message.h>
#include <reel/nn/files/atomic_file.h>
#include <reel/nn/files/file.h>
#include <reel/nn/files/npy.h>
#include <reel/nn/files/npy_format.h>

namespace reel::nn {
namespace {

constexpr std::string_view extension = ".npy";

using npy::Unreadable;
using Bytes = std::vector<std::byte>;

// An archive in memory: what libzip does to files is not what AtomicFile promises.
class Archive {
 public:
  Archive(const void* bytes, std::size_t size, int flags) {
    zip_error_init(&error_);
    source_ = zip_source_buffer_create(bytes, size, 0, &error_);
    if (source_) zip_source_keep(source_);
    if (source_) archive_ = zip_open_from_source(source_, flags, &error_);
    if (!archive_) {
      const std::string reason = zip_error_strerror(&error_);
      if (source_) zip_source_free(source_);  // what the archive would have owned
      release();
      throw Unreadable{fmt::format("it is no .npz file: {}", reason)};
    }
  }
  ~Archive() {
    if (archive_) zip_discard(archive_);
    release();
  }
  Archive(const Archive&) = delete;
  Archive& operator=(const Archive&) = delete;

  zip_t* get() const { return archive_; }
  std::string reason() const { return zip_strerror(archive_); }
  zip_int64_t count() const { return zip_get_num_entries(archive_, 0); }

  // Writes the archive to its buffer, and reads that.
  Bytes finished() {
    if (zip_close(archive_) != 0) throw Unreadable{reason()};
    archive_ = nullptr;
    zip_stat_t stat;
    zip_stat_init(&stat);
    if (zip_source_stat(source_, &stat) != 0 || zip_source_open(source_) != 0)
      throw Unreadable{zip_error_strerror(zip_source_error(source_))};
    Bytes bytes(stat.size);
    const zip_int64_t read = zip_source_read(source_, bytes.data(), bytes.size());
    zip_source_close(source_);
    if (read != static_cast<zip_int64_t>(bytes.size())) throw Unreadable{"it cannot be read back"};
    return bytes;
  }

 private:
  void release() {
    if (source_) zip_source_free(source_);
    zip_error_fini(&error_);
  }

  zip_error_t error_;
  zip_source_t* source_ = nullptr;
  zip_t* archive_ = nullptr;
};

Bytes bytes_of(const Archive& archive, zip_uint64_t entry, std::size_t size) {
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> file(
      zip_fopen_index(archive.get(), entry, 0), zip_fclose);
  if (!file) throw Unreadable{archive.reason()};
  // The size that the archive states is checked by what there is: memory grows with it.
  constexpr std::size_t step = std::size_t{1} << 24;
  Bytes bytes;
  while (bytes.size() < size) {
    const std::size_t begin = bytes.size();
    bytes.resize(std::min(size, begin + step));
    const zip_int64_t read = zip_fread(file.get(), bytes.data() + begin, bytes.size() - begin);
    if (read <= 0) throw Unreadable{"it is cut off, or does not have its checksum"};
    bytes.resize(begin + static_cast<std::size_t>(read));
  }
  std::byte beyond;
  if (zip_fread(file.get(), &beyond, 1) != 0)
    throw Unreadable{"it does not have its size or checksum"};
  return bytes;
}

void read_entry(const Archive& archive, zip_uint64_t entry, NamedTensors& content) {
  zip_stat_t stat;
  zip_stat_init(&stat);
  if (zip_stat_index(archive.get(), entry, 0, &stat) != 0 || !(stat.valid & ZIP_STAT_SIZE))
    throw Unreadable{archive.reason()};
  std::string name = stat.name;
  if (name.ends_with('/')) return;  // a folder
  if (!name.ends_with(extension))
    throw Unreadable{fmt::format("its entry {} is no .npy file", in_quotes(name))};
  name.resize(name.size() - extension.size());
  if (content.tensors.contains(name) || content.unread.contains(name))
    throw Unreadable{fmt::format("it has two arrays named {}", in_quotes(name))};
  try {
    content.tensors.emplace(name, npy::parse(bytes_of(archive, entry, stat.size)));
  } catch (const Unreadable& unreadable) {
    if (!unreadable.unfit)
      throw Unreadable{fmt::format("array {}: {}", in_quotes(name), unreadable.reason)};
    content.unread.emplace(name, unreadable.reason);
  }
}

void add_entry(const Archive& archive, const std::string& name, const Bytes& bytes) {
  zip_source_t* const source = zip_source_buffer(archive.get(), bytes.data(), bytes.size(), 0);
  const zip_int64_t entry =
      source ? zip_file_add(archive.get(), (name + std::string(extension)).c_str(), source,
                            ZIP_FL_ENC_UTF_8)
             : -1;
  if (entry < 0 ||
      zip_set_file_compression(archive.get(), static_cast<zip_uint64_t>(entry), ZIP_CM_STORE, 0)) {
    if (entry < 0 && source) zip_source_free(source);
    throw Unreadable{archive.reason()};
  }
}

Bytes npy_of(const Tensor& x) {
  const std::string header = npy::header_of(x);
  Bytes bytes;
  const auto append = [&](std::span<const std::byte> more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
  };
  append(std::as_bytes(std::span(header)));
  dispatch(x.dtype(), [&]<class T>() { append(std::as_bytes(x.values<T>())); });
  return bytes;
}

}  // namespace

NamedTensors load_npz(const Location& where, Site) {
  File file = File::regular(where, O_RDONLY);
  Bytes content(file.size());
  content.resize(file.read(content));
  try {
    if (content.empty()) throw Unreadable{"it is no .npz file: it is empty"};  // libzip takes that
    const Archive archive(content.data(), content.size(), ZIP_RDONLY | ZIP_CHECKCONS);
    NamedTensors result;
    for (zip_int64_t i = 0; i < archive.count(); ++i)
      read_entry(archive, static_cast<zip_uint64_t>(i), result);
    return result;
  } catch (const Unreadable& unreadable) {
    throw FileError(fmt::format("{}: {}", where.str(), unreadable.reason));
  }
}

void save_npz(const Location& where, const NamedTensors& content, Site site) {
  std::vector<Bytes> arrays;  // which the archive reads when it is finished
  for (const auto& [name, x] : content.tensors) {
    if (name.empty() || name.front() == '/')
      throw ValueError(fmt::format("save_npz: {} cannot be the name of an array", in_quotes(name)),
                       site);
    if (!x.defined())
      throw ValueError(fmt::format("save_npz: tensor {} is undefined", in_quotes(name)), site);
    arrays.push_back(npy_of(x));
  }
  AtomicFile file(where);
  try {
    Archive archive(nullptr, 0, ZIP_TRUNCATE);
    std::size_t next = 0;
    for (const auto& [name, x] : content.tensors) add_entry(archive, name, arrays[next++]);
    file.write(archive.finished());
  } catch (const Unreadable& unreadable) {
    throw FileError(fmt::format("{}: {}", where.str(), unreadable.reason));
  }
  file.commit();
}

}  // namespace reel::nn
