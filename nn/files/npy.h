#pragma once

#include <reel/nn/files/location.h>
#include <reel/nn/named_tensors.h>

/// NumPy's files (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
namespace reel::nn {

/// Writes an array as a .npy file, in place of the old one as AtomicFile does. Throws ValueError
/// for an undefined tensor, FileError if writing fails.
void save_npy(const Location& where, const Tensor& x, Site site = {});

/// Reads a .npy file, of either byte order, in C or Fortran order. f4, f8 and i4 are read as they
/// are, f2 as f32, other integers and booleans as i32. Throws FileError, with the path and the
/// reason, if the file cannot be read, is malformed, or holds what a tensor cannot: more than four
/// axes, another type, an integer out of range of i32.
Tensor load_npy(const Location& where);

/// Writes a .npz file, an archive of arrays that numpy.load reads, as AtomicFile does. Metadata are
/// not written. Throws as save_npy, ValueError also for names that are empty or begin with "/", and
/// if Reel was built without libzip.
void save_npz(const Location& where, const NamedTensors& content, Site site = {});

/// Reads a .npz file, compressed or not. Arrays that a tensor cannot hold are listed in `unread`
/// with the reason. Throws FileError, with the path and the reason, if the file cannot be read or
/// is malformed, ValueError if Reel was built without libzip.
NamedTensors load_npz(const Location& where, Site site = {});

}  // namespace reel::nn
