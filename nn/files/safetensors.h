#pragma once

#include <filesystem>

#include <reel/nn/named_tensors.h>

namespace reel::nn {

/// Writes a safetensors file: a JSON header of names, dtypes (F32, F64, I32), shapes and offsets,
/// then the numbers, little-endian and aligned to their size
/// (https://github.com/huggingface/safetensors). The file is replaced as a whole, see AtomicFile.
/// Throws ValueError for a name or text that the format does not take (not UTF-8, empty, longer
/// than 1024 bytes, with a NUL) or an undefined tensor, FileError when writing fails.
void save_safetensors(const std::filesystem::path& path, const NamedTensors& content);

/// Reads a safetensors file. The content is taken as hostile: everything the header says is checked
/// against the size of the file before memory is asked for.
/// Throws FileError with the path and the reason when the file cannot be read, is malformed in any
/// way, or holds a tensor of another dtype or of more than four axes, which is named.
NamedTensors load_safetensors(const std::filesystem::path& path);

}  // namespace reel::nn
