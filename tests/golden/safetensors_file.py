"""Writes the files of golden values: arrays of f64 and i32 by name, in the format safetensors."""
import json
import struct

import numpy as np

DTYPES = {"float64": "F64", "int32": "I32"}


def save(path, arrays, **metadata):
    """Header length, JSON header, data; f64 first, so all is aligned."""
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    names = sorted(arrays, key=lambda name: (DTYPES[str(arrays[name].dtype)], name))
    header, chunks, end = {"__metadata__": metadata}, [], 0
    for name in names:
        array = arrays[name]
        chunks.append(array.astype(array.dtype.newbyteorder("<")).tobytes())
        header[name] = {"dtype": DTYPES[str(array.dtype)], "shape": list(array.shape),
                        "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(chunks))
    print(f"{path}: {len(names)} tensors, {path.stat().st_size} bytes")
