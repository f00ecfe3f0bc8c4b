#ifdef _WIN32

#include <reel/nn/files/system.h>

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

#include <io.h>

#include <algorithm>
#include <cerrno>
#include <utility>

// Descriptors are those of the C library, also for directories. Every file is opened so that others
// may read, write, rename and remove it meanwhile, as POSIX always allows.
namespace reel::nn::system {
namespace {

constexpr DWORD shared_by_all = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

// Sets errno for the last error of Windows.
void set_errno() {
  switch (GetLastError()) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_BAD_NETPATH:
    case ERROR_INVALID_NAME:
    case ERROR_INVALID_DRIVE:
      errno = ENOENT;
      break;
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS:
      errno = EEXIST;
      break;
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
      errno = EBUSY;
      break;
    case ERROR_DIRECTORY:
      errno = ENOTDIR;
      break;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
      errno = ENOSPC;
      break;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
      errno = ENOMEM;
      break;
    case ERROR_TOO_MANY_OPEN_FILES:
      errno = EMFILE;
      break;
    case ERROR_FILENAME_EXCED_RANGE:
      errno = ENAMETOOLONG;
      break;
    case ERROR_ACCESS_DENIED:
    case ERROR_WRITE_PROTECT:
      errno = EACCES;
      break;
    default:
      errno = EIO;
  }
}

bool succeeded(BOOL result) {
  if (!result) set_errno();
  return result != 0;
}

HANDLE handle_of(int descriptor) { return reinterpret_cast<HANDLE>(_get_osfhandle(descriptor)); }

// A path that may be long, as the system gives it: "\\?\C:\folder".
std::optional<std::wstring> final_path(int directory) {
  const HANDLE handle = handle_of(directory);
  std::wstring path(GetFinalPathNameByHandleW(handle, nullptr, 0, 0), L'\0');
  const DWORD length =
      GetFinalPathNameByHandleW(handle, path.data(), static_cast<DWORD>(path.size()), 0);
  if (length == 0 || length >= path.size()) {
    set_errno();
    return std::nullopt;
  }
  path.resize(length);
  return path;
}

// A name in a directory as a path; of a directory that cannot be found one that leads nowhere.
std::filesystem::path resolved(int directory, std::filesystem::path name) {
  if (directory == working_directory || name.is_absolute()) return name;
  std::filesystem::path path = final_path(directory).value_or(L"");
  return name == "." ? path : path / name.make_preferred();
}

int descriptor_of(HANDLE handle, int flags) {
  if (handle == INVALID_HANDLE_VALUE) {
    set_errno();
    return -1;
  }
  const int descriptor =
      _open_osfhandle(reinterpret_cast<std::intptr_t>(handle), flags | _O_BINARY | _O_NOINHERIT);
  if (descriptor == -1) CloseHandle(handle);
  return descriptor;
}

// Opens what may be a directory, to ask for its status or to look up names in it.
HANDLE open_any(const std::filesystem::path& path, DWORD access) {
  return CreateFileW(path.c_str(), access, shared_by_all, nullptr, OPEN_EXISTING,
                     FILE_FLAG_BACKUP_SEMANTICS, nullptr);
}

std::uint64_t joined(DWORD high, DWORD low) { return (std::uint64_t{high} << 32) | low; }

std::optional<FileStatus> status_of(HANDLE handle) {
  const DWORD type = GetFileType(handle);
  if (type == FILE_TYPE_PIPE) return FileStatus{.kind = FileKind::pipe};
  if (type == FILE_TYPE_CHAR) return FileStatus{.kind = FileKind::device};
  BY_HANDLE_FILE_INFORMATION information;
  FILE_STANDARD_INFO standard;
  if (!succeeded(GetFileInformationByHandle(handle, &information)) ||
      !succeeded(
          GetFileInformationByHandleEx(handle, FileStandardInfo, &standard, sizeof standard)))
    return std::nullopt;
  const bool is_directory = (information.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
  return FileStatus{.kind = is_directory ? FileKind::directory : FileKind::regular,
                    .size = joined(information.nFileSizeHigh, information.nFileSizeLow),
                    .permissions = 0666,
                    .device = information.dwVolumeSerialNumber,
                    .number = joined(information.nFileIndexHigh, information.nFileIndexLow),
                    .links = standard.DeletePending ? 0 : information.nNumberOfLinks};
}

DWORD disposition_of(int flags) {
  if ((flags & _O_CREAT) == 0) return (flags & _O_TRUNC) != 0 ? TRUNCATE_EXISTING : OPEN_EXISTING;
  if ((flags & _O_EXCL) != 0) return CREATE_NEW;
  return (flags & _O_TRUNC) != 0 ? CREATE_ALWAYS : OPEN_ALWAYS;
}

}  // namespace

std::optional<FileStatus> status(int directory, const std::filesystem::path& name) {
  const HANDLE handle = open_any(resolved(directory, name), 0);
  if (handle == INVALID_HANDLE_VALUE) {
    set_errno();
    return std::nullopt;
  }
  const auto status = status_of(handle);
  CloseHandle(handle);
  return status;
}

std::optional<FileStatus> status(int descriptor) { return status_of(handle_of(descriptor)); }

bool is_link(int directory, const std::filesystem::path& name) {
  std::error_code ignored;
  return std::filesystem::is_symlink(resolved(directory, name), ignored);
}

std::optional<std::filesystem::path> read_link(int directory, const std::filesystem::path& name) {
  errno = 0;
  if (!is_link(directory, name)) return std::nullopt;
  std::error_code error;
  auto target = std::filesystem::read_symlink(resolved(directory, name), error);
  if (!error) return target;
  errno = EIO;
  return std::nullopt;
}

int open(int directory, const std::filesystem::path& name, int flags, unsigned, bool) {
  const bool writes = (flags & (_O_WRONLY | _O_RDWR)) != 0, reads = (flags & _O_WRONLY) == 0;
  const DWORD access = (reads ? GENERIC_READ : 0) | (writes ? GENERIC_WRITE : 0);
  return descriptor_of(CreateFileW(resolved(directory, name).c_str(), access, shared_by_all,
                                   nullptr, disposition_of(flags), FILE_ATTRIBUTE_NORMAL, nullptr),
                       flags & (_O_APPEND | _O_RDONLY | _O_WRONLY | _O_RDWR));
}

std::ptrdiff_t read(int descriptor, std::byte* to, std::size_t count) {
  return _read(descriptor, to, static_cast<unsigned>(std::min<std::size_t>(count, 1 << 30)));
}

std::ptrdiff_t write(int descriptor, const std::byte* from, std::size_t count) {
  return _write(descriptor, from, static_cast<unsigned>(std::min<std::size_t>(count, 1 << 30)));
}

bool seek(int descriptor, std::uint64_t offset) {
  return _lseeki64(descriptor, static_cast<std::int64_t>(offset), SEEK_SET) != -1;
}

bool resize(int descriptor, std::uint64_t size) {
  return _chsize_s(descriptor, static_cast<std::int64_t>(size)) == 0;
}

// A new file has the permissions that its folder gives, and so has one that replaces another.
bool set_permissions(int, unsigned) { return true; }

bool sync(int descriptor) { return _commit(descriptor) == 0; }

bool close(int descriptor) { return _close(descriptor) == 0; }

int open_directory(int directory, const std::filesystem::path& name) {
  const int descriptor =
      descriptor_of(open_any(resolved(directory, name), FILE_LIST_DIRECTORY), _O_RDONLY);
  const auto there = descriptor == -1 ? std::nullopt : status(descriptor);
  if (descriptor == -1 || (there && there->is_directory())) return descriptor;
  _close(descriptor);
  errno = ENOTDIR;
  return -1;
}

std::optional<std::filesystem::path> path_of(int directory) {
  auto path = final_path(directory);
  if (!path) return std::nullopt;
  constexpr std::wstring_view local = L"\\\\?\\", network = L"\\\\?\\UNC\\";
  if (path->starts_with(network)) return L"\\\\" + path->substr(network.size());
  return path->starts_with(local) ? path->substr(local.size()) : *path;
}

std::vector<std::filesystem::path> names_in(int directory) {
  std::vector<std::filesystem::path> names;
  std::error_code error;
  for (std::filesystem::directory_iterator i(resolved(directory, "."), error), end;
       !error && i != end; i.increment(error))
    names.push_back(i->path().filename());
  return names;
}

// Directories cannot be locked, but a file in them can: it is there while it is open.
int lock(int directory) {
  const int descriptor = descriptor_of(
      CreateFileW(resolved(directory, ".lock").c_str(), GENERIC_WRITE | DELETE, 0, nullptr,
                  OPEN_ALWAYS, FILE_ATTRIBUTE_HIDDEN | FILE_FLAG_DELETE_ON_CLOSE, nullptr),
      _O_WRONLY);
  if (descriptor == -1 && errno == EBUSY) errno = EWOULDBLOCK;
  return descriptor;
}

bool sync_directory(int) { return true; }  // `rename` waits for the disk

bool make_directory(int directory, const std::filesystem::path& name) {
  return succeeded(CreateDirectoryW(resolved(directory, name).c_str(), nullptr));
}

// Programs that look at every new file, such as virus scanners, keep others from replacing it for a
// moment.
bool rename(int directory, const std::filesystem::path& from, const std::filesystem::path& to) {
  const auto old_path = resolved(directory, from), new_path = resolved(directory, to);
  constexpr int most_attempts = 50;
  for (int attempt = 1;; ++attempt) {
    if (MoveFileExW(old_path.c_str(), new_path.c_str(),
                    MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH))
      return true;
    const DWORD error = GetLastError();
    const bool may_pass = error == ERROR_SHARING_VIOLATION || error == ERROR_ACCESS_DENIED;
    if (!may_pass || attempt == most_attempts) return succeeded(FALSE);
    Sleep(20);
  }
}

bool remove(int directory, const std::filesystem::path& name) {
  return succeeded(DeleteFileW(resolved(directory, name).c_str()));
}

std::uint64_t process_id() { return GetCurrentProcessId(); }

std::uint64_t physical_memory() {
  MEMORYSTATUSEX memory{};
  memory.dwLength = sizeof memory;
  return GlobalMemoryStatusEx(&memory) ? memory.ullTotalPhys : 0;
}

}  // namespace reel::nn::system

#endif
