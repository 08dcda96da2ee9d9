"""Reads .ckpt, .pt and .bin without torch: the zip format of today and the one before 1.6.

Source: torch/serialization.py, _load and _legacy_load, for the order of the parts.
"""

import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffedit_jax.checkpoints.files import map_file
from diffedit_jax.checkpoints.pickle_machine import PickleMachine
from diffedit_jax.checkpoints.torch_objects import Storage, allowed_names, arrays, storage_dtype
from diffedit_jax.errors import UserError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
PICKLE_LIMIT = 256 * 2**20
CHUNK = 16 * 2**20
READ_ERRORS = (
    *(ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, MemoryError),
    *(struct.error, zipfile.BadZipFile, NotImplementedError, EOFError, RecursionError),
)


def read_torch(path: str | Path, *, classes: Sequence[str] = ()) -> Any:
    """Reads what torch.save wrote: nested containers whose tensors are read-only numpy views.

    No code in the file is run and no name in it is imported; every zip member's CRC is checked.
    Objects of `classes` (dotted names) become dicts of their fields; all others are refused.

    Raises: UserError for anything but tensors and plain containers (naming it), damaged or
    truncated files, compressed or encrypted members, views outside their storage.

        state = read_torch("v1-5-pruned.ckpt")["state_dict"]
    """
    data = map_file(path)
    try:
        if data[:4] == b"PK\x03\x04":
            return arrays(_read_zip(data, path, classes))
        return arrays(_read_legacy(data, path, classes))
    except READ_ERRORS as error:
        if isinstance(error, UserError):
            raise
        raise _broken(path, str(error)[:200]) from None


def _read_zip(data: mmap.mmap, path, classes: Sequence[str]) -> Any:
    members = _members(data, path)
    root = next((name[: -len("data.pkl")] for name in members if name.endswith("data.pkl")), None)
    if root is None:
        raise _broken(path, "a zip archive without data.pkl")
    if f"{root}constants.pkl" in members:
        raise UserError(f"{path} is a TorchScript program, not weights; use its state dict instead")
    if bytes(members.get(f"{root}byteorder", b"little")) != b"little":
        raise UserError(f"{path} was written on a big-endian machine; save it again as safetensors")
    if len(members[f"{root}data.pkl"]) > PICKLE_LIMIT:
        raise _broken(path, "its data.pkl is larger than 256 MB")
    storages: dict[tuple, Storage] = {}

    def persistent(identifier) -> Storage:
        dtype, key, count, _ = _storage_id(identifier)
        if (key, dtype) not in storages:
            storages[key, dtype] = _storage(dtype, count, members[f"{root}data/{key}"], key)
        return storages[key, dtype]

    machine = PickleMachine(str(path), allowed_names(classes), persistent)
    return machine.run(io.BytesIO(members[f"{root}data.pkl"]))


def _storage_id(identifier) -> tuple[np.dtype, str, int, tuple | None]:
    """Checks ("storage", class, key, device, count[, view]); the device does not matter here."""
    if not isinstance(identifier, tuple) or len(identifier) not in (5, 6):
        raise ValueError("a persistent id that is not a storage")
    word, kind, key, _, count = identifier[:5]
    if word != "storage" or not isinstance(key, str) or type(count) is not int or count < 0:
        raise ValueError("a malformed persistent id")
    return storage_dtype(kind), key, count, identifier[5] if len(identifier) == 6 else None


def _storage(dtype: np.dtype, count: int, raw: memoryview, key: str) -> Storage:
    if count * dtype.itemsize != len(raw):
        raise ValueError(f"the storage {key!r} holds {len(raw)} bytes, not {count} {dtype} numbers")
    return Storage(dtype, count, np.frombuffer(raw, dtype) if count else np.zeros(0, dtype))


def _members(data: mmap.mmap, path) -> dict[str, memoryview]:
    """Every member of the archive as a view of the file, CRC checked.

    Only stored members are taken: torch never compresses, and a compressed member of a few kB
    can claim gigabytes.
    """
    found: dict[str, memoryview] = {}
    with zipfile.ZipFile(_Stream(data)) as archive:
        for info in archive.infolist():
            if info.filename in found:
                raise ValueError(f"the member {info.filename!r} appears twice")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
                raise ValueError(f"the member {info.filename!r} is compressed or encrypted")
            found[info.filename] = _member(data, info)
    return found


def _member(data: mmap.mmap, info: zipfile.ZipInfo) -> memoryview:
    start = info.header_offset
    if data[start : start + 4] != b"PK\x03\x04":
        raise ValueError(f"the member {info.filename!r} is not where the archive says")
    name_length, extra_length = struct.unpack("<HH", data[start + 26 : start + 30])
    begin = start + 30 + name_length + extra_length
    if info.file_size != info.compress_size or begin + info.file_size > len(data):
        raise ValueError(f"the member {info.filename!r} is truncated")
    view = memoryview(data)[begin : begin + info.file_size]
    crc = 0
    for position in range(0, len(view), CHUNK):
        crc = zlib.crc32(view[position : position + CHUNK], crc)
    if crc != info.CRC:
        raise ValueError(f"the checksum of {info.filename!r} is wrong: the file is damaged")
    return view


class _Stream:
    """The file interface that zipfile needs, over a map and without a second open file."""

    def __init__(self, data: mmap.mmap):
        self.data = data
        self.position = 0

    def read(self, size: int = -1) -> bytes:
        end = len(self.data) if size is None or size < 0 else self.position + size
        found = self.data[self.position : end]
        self.position += len(found)
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self.position, len(self.data))[whence]
        if base + offset < 0:
            raise ValueError("a position before the start of the file")
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def seekable(self) -> bool:
        return True


def _read_legacy(data: mmap.mmap, path, classes: Sequence[str]) -> Any:
    storages: dict[str, Storage] = {}
    views: dict[str, tuple[Storage, Storage, int]] = {}

    def persistent(identifier) -> Storage:
        dtype, key, count, view = _storage_id(identifier)
        root = storages.setdefault(key, Storage(dtype, count))
        if root.dtype != dtype:
            raise ValueError(f"the storage {key!r} is named with two dtypes")
        return root if view is None else _legacy_view(root, view, views)

    def run() -> Any:
        return PickleMachine(str(path), allowed_names(classes), persistent).run(data)

    if data[:1] != b"\x80" or run() != LEGACY_MAGIC:
        raise UserError(f"{path} is neither a safetensors nor a torch file; check what it is")
    if run() != LEGACY_PROTOCOL or not run().get("little_endian", True):
        raise _broken(path, "an unknown protocol or byte order")
    found, keys = run(), run()
    for key in keys:
        _fill(storages[key], data)
    for root, part, start in views.values():
        part.data = root.data[start : start + part.count]
    return found


def _legacy_view(root: Storage, view, views: dict) -> Storage:
    """(view key, offset, count): several old tensors could share one storage this way."""
    key, start, count = view
    if not all(type(n) is int and n >= 0 for n in (start, count)) or start + count > root.count:
        raise ValueError("a storage view reaches outside its storage")
    if key not in views:
        views[key] = (root, Storage(root.dtype, count), start)
    return views[key][1]


def _fill(storage: Storage, data: mmap.mmap) -> None:
    """The legacy format appends each storage as an int64 count and the raw numbers."""
    (count,) = struct.unpack("<q", data.read(8))
    begin, size = data.tell(), count * storage.dtype.itemsize
    if count != storage.count or begin + size > len(data):
        raise ValueError("a storage is truncated or of another size than described")
    empty = np.zeros(0, storage.dtype)
    storage.data = np.frombuffer(data, storage.dtype, count, begin) if count else empty
    data.seek(begin + size)


def _broken(path, why: str) -> UserError:
    return UserError(f"{path} is not a sound checkpoint: {why}; download it again")
