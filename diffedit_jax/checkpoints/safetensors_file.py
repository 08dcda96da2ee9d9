"""Reads .safetensors: arrays are views of the mapped file, so nothing is copied.

Source: the format section of the safetensors README: 8 bytes little-endian header length N,
N bytes of JSON {name: {dtype, shape, data_offsets: [begin, end]}}, then the data.
"""

import math
import mmap
from pathlib import Path

import ml_dtypes
import numpy as np

from diffedit_jax.checkpoints.files import map_file, parse_json
from diffedit_jax.errors import UserError

HEADER_LIMIT = 100_000_000  # of the reference implementation
DIMENSION_LIMIT = 2**40  # beyond it an empty shape such as [0, 2**62] breaks numpy
DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a .safetensors file as a read-only view of the file.

    Raises: UserError for a truncated file, a bad header, duplicate names, unknown dtypes, and
    offsets that overlap, leave holes or do not fit the shape.

        weights = read_safetensors("unet/diffusion_pytorch_model.safetensors")
    """
    data = map_file(path)
    header, start = _header(data, path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _broken(path, "__metadata__ is not an object")
    spans = sorted(_span(name, entry, path) + (name,) for name, entry in header.items())
    _check_cover(spans, len(data) - start, path)
    return {name: _view(data, start, header[name]) for _, _, name in spans}


def read_metadata(path: str | Path) -> dict[str, str]:
    """The texts that a .safetensors file carries beside its tensors; empty for other files."""
    data = map_file(path)
    if not is_safetensors(data[:16]):
        return {}
    found = _header(data, path)[0].get("__metadata__", {})
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def is_safetensors(head: bytes) -> bool:
    """Whether the first bytes of a file look like a safetensors header."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") > 1


def _header(data: mmap.mmap, path) -> tuple[dict, int]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or data[8:9] != b"{":
        raise _broken(path, "it does not start with a header")
    if length > HEADER_LIMIT or 8 + length > len(data):
        raise _broken(path, f"its header wants {length} bytes of {len(data)}: truncated?")
    return parse_json(data[8 : 8 + length], f"the header of {path}"), 8 + length


def _span(name: str, entry, path) -> tuple[int, int]:
    """Checks one entry by itself: dtype known, sizes natural numbers, bytes = shape * dtype."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        raise _broken(path, f"the entry {name!r} is malformed")
    if entry["dtype"] not in DTYPES:
        raise _broken(path, f"{name!r} has the unknown dtype {entry['dtype']!r}")
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise _broken(path, f"{name!r} has a malformed shape or data_offsets")
    size = math.prod(shape) * np.dtype(DTYPES[entry["dtype"]]).itemsize
    if offsets[1] - offsets[0] != size or max(shape, default=0) > DIMENSION_LIMIT:
        raise _broken(path, f"{name!r}: shape {shape} does not fit its {offsets} bytes")
    return offsets[0], offsets[1]


def _naturals(value) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_cover(spans: list[tuple], size: int, path) -> None:
    """The data section must be covered exactly once: no overlap, no hole, nothing left over."""
    position = 0
    for begin, end, name in spans:
        if begin != position:
            fault = "overlaps" if begin < position else "leaves a hole after"
            raise _broken(path, f"{name!r} {fault} the tensor before it")
        position = end
    if position != size:
        fault = "truncated" if position > size else "bytes after the last tensor"
        raise _broken(path, f"{fault}: {size} bytes of data where {position} are described")


def _view(data: mmap.mmap, start: int, entry: dict) -> np.ndarray:
    dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
    count, offset = math.prod(shape), start + entry["data_offsets"][0]
    if count == 0:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype, count, offset).reshape(shape)


def _broken(path, why: str) -> UserError:
    return UserError(f"{path} is not a sound safetensors file: {why}; download it again")
