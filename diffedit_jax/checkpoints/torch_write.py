"""Writes what torch.load reads: nested plain containers with arrays, without torch.

Source: torch/serialization.py (_save: the members of the archive) and pickletools for the
opcodes. Only `torch._utils._rebuild_tensor_v2` and storage classes are named, so that
torch.load(weights_only=True) takes the file.
"""

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

STORED = {np.dtype(np.float32): "FloatStorage", np.dtype(np.int64): "LongStorage"}


def write_torch(path: Path, value: Any) -> None:
    """Writes dicts, texts, whole numbers, None, and float32 and int64 arrays as a .pt."""
    storages: list[np.ndarray] = []
    body = b"\x80\x02" + _pickled(value, storages) + b"."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/byteorder", "little")
        for number, array in enumerate(storages):
            archive.writestr(f"archive/data/{number}", array.tobytes())
        archive.writestr("archive/version", "3\n")


def _pickled(value: Any, storages: list[np.ndarray]) -> bytes:
    if isinstance(value, np.ndarray):
        return _tensor(value, storages)
    if isinstance(value, dict):
        items = [_pickled(one, storages) for pair in value.items() for one in pair]
        return b"}(" + b"".join(items) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(_pickled(one, storages) for one in value) + b"t"
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        digits = pickle.encode_long(value)
        return b"\x8a" + struct.pack("<B", len(digits)) + digits
    if isinstance(value, str):
        text = value.encode("utf-8")
        return b"X" + struct.pack("<I", len(text)) + text
    raise TypeError(f"a {type(value).__name__} is not written")


def _tensor(array: np.ndarray, storages: list[np.ndarray]) -> bytes:
    """_rebuild_tensor_v2(storage, 0, size, stride, requires_grad False, hooks {})."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    storages.append(array)
    kind = f"ctorch\n{STORED[array.dtype]}\n".encode()
    rest = (str(len(storages) - 1), "cpu", int(array.size))
    identifier = b"(" + _pickled("storage", []) + kind
    identifier += b"".join(_pickled(one, []) for one in rest) + b"tQ"
    strides = tuple(step // array.itemsize for step in array.strides)
    arguments = b"".join(_pickled(one, []) for one in (0, array.shape, strides, False))
    hooks = b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + identifier + arguments + hooks + b"tR"
