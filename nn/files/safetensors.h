#pragma once

#include <reel/nn/files/location.h>
#include <reel/nn/named_tensors.h>

namespace reel::nn {

/// Writes a safetensors file: a JSON header of names, dtypes (F32, F64, I32), shapes and offsets,
/// then the numbers, little-endian and aligned to their size
/// (https://github.com/huggingface/safetensors). The file is replaced as a whole, see AtomicFile.
/// Throws ValueError for a name or text that the format does not allow (not UTF-8, empty, longer
/// than 1024 bytes, with a NUL), an undefined tensor or `unread` ones, FileError if writing fails.
void save_safetensors(const Location& where, const NamedTensors& content, Site site = {});

/// Reads a safetensors file. The content is untrusted: everything the header says is checked
/// against the size of the file before memory is allocated.
///
/// F32, F64 and I32 are read as they are. Other formats are converted where this is lossless: F16
/// and BF16 to f32, integers and BOOL to i32. A tensor that Reel cannot represent (another format,
/// a number out of range of i32, more than four axes) is listed in `unread` with the reason; only
/// accessing that tensor is an error.
/// Throws FileError with the path and the reason if the file cannot be read or is malformed in any
/// way.
NamedTensors load_safetensors(const Location& where);

/// Reads a model that is split into several safetensors files, from their index: a JSON object
/// whose `weight_map` has the name of a file for each tensor. All have to be beside the index.
/// Throws FileError as load_safetensors does, also for an index that is malformed, names a file
/// elsewhere, or differs from what the files have.
NamedTensors load_sharded_safetensors(const Location& index);

}  // namespace reel::nn
