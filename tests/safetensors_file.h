#pragma once

#include <cstring>
#include <string>
#include <string_view>

#include <reel/nn/files/safetensors.h>

#include "temporary_directory.h"

// Safetensors files as strings.
namespace reel::testing {

/// A header of `length` bytes, as the file says, and what follows.
inline std::string file_of(std::uint64_t length, std::string_view rest) {
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file.append(rest);
}

inline std::string file_of(const std::string& header, std::size_t data_bytes) {
  return file_of(header.size(), header + std::string(data_bytes, '\1'));
}

inline std::string entry(std::string_view name, std::string_view dtype, std::string_view shape,
                         std::string_view offsets) {
  std::string text = "\"" + std::string(name) + "\":{\"dtype\":\"";
  return text.append(dtype)
             .append("\",\"shape\":")
             .append(shape)
             .append(",\"data_offsets\":")
             .append(offsets) +
         "}";
}

// A file of one tensor "w" of 16 bytes.
inline std::string one_tensor(std::string_view dtype, std::string_view shape,
                              std::string_view offsets) {
  return file_of("{" + entry("w", dtype, shape, offsets) + "}", 16);
}

/// The message with which saving is refused.
inline std::string saving(const std::filesystem::path& path, const nn::NamedTensors& content) {
  return ::message_of<ValueError>([&] { nn::save_safetensors(path, content); });
}

}  // namespace reel::testing
