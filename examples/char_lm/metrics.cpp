#include "metrics.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tuple>

#include <reel/autograd/error.h>

namespace reel::char_lm {
namespace {

std::string json_line(const Metrics& m) {
  nlohmann::ordered_json line;
  line["step"] = m.step;
  line["epoch"] = m.epoch;
  line["train_loss"] = m.train_loss;
  if (m.valid_loss) line["valid_loss"] = *m.valid_loss;
  line["lr"] = m.lr;
  line["grad_norm"] = m.grad_norm;
  line["chars_per_s"] = std::llround(m.chars_per_s);
  line["elapsed_s"] = std::round(m.elapsed_s * 1000) / 1000;
  return line.dump() + '\n';
}

// Foreign or damaged lines count as no time.
double elapsed_in(const std::string& line) {
  const auto parsed = nlohmann::json::parse(line, nullptr, false);
  const auto elapsed = parsed.is_object() ? parsed.find("elapsed_s") : parsed.end();
  return elapsed != parsed.end() && elapsed->is_number() ? elapsed->get<double>() : 0;
}

[[noreturn]] void fail(const std::filesystem::path& path) {
  throw FileError(fmt::format("{}: cannot write: {}", path.string(), std::strerror(errno)));
}

}  // namespace

MetricsFile::MetricsFile(std::filesystem::path path, Index lines) : path_(std::move(path)) {
  std::ifstream file(path_, std::ios::binary);
  std::uintmax_t kept = 0;
  for (std::string line; lines_ < lines && std::getline(file, line) && !file.eof(); ++lines_) {
    kept += line.size() + 1;
    elapsed_s_ = elapsed_in(line);
  }
  std::error_code error;
  if (file.is_open() && std::filesystem::file_size(path_) > kept)
    std::filesystem::resize_file(path_, kept, error);
  if (error)
    throw FileError(fmt::format("{}: cannot shorten: {}", path_.string(), error.message()));
}

void MetricsFile::append(const Metrics& metrics) {
  const std::string line = json_line(metrics);
  const int file = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file == -1) fail(path_);
  const off_t before = ::lseek(file, 0, SEEK_END);
  const ssize_t written = ::write(file, line.data(), line.size());
  const bool whole = written == static_cast<ssize_t>(line.size());
  const int reason = written == -1 ? errno : ENOSPC;
  if (!whole) std::ignore = ::ftruncate(file, before);
  ::close(file);
  errno = reason;
  if (!whole) fail(path_);
  ++lines_;
  elapsed_s_ = metrics.elapsed_s;
}

}  // namespace reel::char_lm
