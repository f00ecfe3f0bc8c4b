#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include <reel/autograd/message.h>
#include <reel/nn/files/file.h>
#include <reel/nn/files/safetensors.h>

namespace reel::nn {
namespace {

constexpr std::uint64_t longest_index = 64 << 20;  // bytes; 250,000 tensors take some 30 million

[[noreturn]] void fail(const Location& index, const std::string& reason) {
  throw FileError(fmt::format("{}: {}", index.str(), reason));
}

// The names of the tensors of each file.
std::map<std::string, std::set<std::string>> files_of(const Location& index) {
  File file = File::regular(index, O_RDONLY);
  if (file.size() > longest_index)
    fail(index, fmt::format("{} bytes are too many for an index", file.size()));
  std::string text(file.size(), ' ');
  text.resize(file.read(std::as_writable_bytes(std::span(text))));
  // Only two levels are wanted; what is deeper is left out, whatever it is.
  const auto shallow = [](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    return depth <= 2;
  };
  const auto json = nlohmann::json::parse(text, shallow, false);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    fail(index, "it is no index of safetensors files: it has no weight_map");
  std::map<std::string, std::set<std::string>> files;
  for (const auto& [name, where] : json["weight_map"].items()) {
    if (!where.is_string())
      fail(index, fmt::format("the file of {} is not a name", in_quotes(name)));
    const auto file_name = where.get<std::string>();
    if (file_name.empty() || file_name.find('/') != file_name.npos || file_name == "..")
      fail(index, fmt::format("the file of {} is {}, which is not beside the index",
                              in_quotes(name), in_quotes(file_name)));
    files[file_name].insert(name);
  }
  return files;
}

}  // namespace

NamedTensors load_sharded_safetensors(const Location& index) {
  NamedTensors result;
  for (const auto& [file_name, names] : files_of(index)) {
    NamedTensors part = load_safetensors(index.path().parent_path() / file_name);
    const auto has = [&](const std::string& name) {
      return part.tensors.contains(name) || part.unread.contains(name);
    };
    for (const std::string& name : names)
      if (!has(name))
        fail(index, fmt::format("{} does not have {}", in_quotes(file_name), in_quotes(name)));
    if (part.tensors.size() + part.unread.size() > names.size())
      fail(index, fmt::format("{} has tensors that are not in the index", in_quotes(file_name)));
    result.tensors.merge(part.tensors);
    result.unread.merge(part.unread);
    result.metadata.merge(part.metadata);
  }
  return result;
}

}  // namespace reel::nn
