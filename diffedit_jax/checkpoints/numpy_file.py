"""Reads pickled dictionaries of arrays, bare or in a .npy, as Flax training scripts write them.

Nothing is unpickled: the instructions run in `PickleMachine`, whose answers are inert, and what
numpy and jax wrote about each array is then read off them.

Source: numpy/lib/format.py for the header; ndarray.__reduce__ (numpy/core) and
jax._src.array._reconstruct_array for the arguments.
"""

import io
import math
from pathlib import Path

import numpy as np

from diffedit_jax.checkpoints.files import map_file
from diffedit_jax.checkpoints.pickle_machine import Global, Inert, PickleMachine
from diffedit_jax.errors import UserError

MAGIC = b"\x93NUMPY"
SIZE_LIMIT = 256 * 2**20
KINDS = ("f2", "f4", "f8")  # what an embedding may be kept in
NAMES = (
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    *("numpy.ndarray", "numpy.dtype", "_codecs.encode", "jax._src.array._reconstruct_array"),
)


def read_pickled_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """{name: array} of a .npy whose only element is such a dictionary.

    Raises: UserError for anything else, naming what it found.
    """
    data = bytes(map_file(path)[:SIZE_LIMIT])
    try:
        machine = PickleMachine(str(path), _names(), _no_storage)
        items = _state(machine.run(io.BytesIO(data[_header(data) :])))[4]
        if not isinstance(items, list) or len(items) != 1 or not isinstance(items[0], dict):
            raise ValueError("not one dictionary")
        return {str(name): _array(value) for name, value in items[0].items()}
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is no pickled dictionary of arrays: {error!s:.100}") from None


def read_array_tree(path: str | Path) -> dict:
    """The arrays of a plain pickle of nested dictionaries, as Flax code pickles its parameters.

    Raises: UserError for anything else, naming what it found.
    """
    data = bytes(map_file(path)[:SIZE_LIMIT])
    try:
        found = PickleMachine(str(path), _names(), _no_storage).run(io.BytesIO(data))
        if not isinstance(found, dict):
            raise ValueError("not a dictionary")
        return _tree(found)
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is no pickled tree of arrays: {error!s:.100}") from None


def _tree(found: dict) -> dict:
    return {
        str(name): _tree(value) if isinstance(value, dict) else _array(value)
        for name, value in found.items()
    }


def _names() -> dict[str, Global]:
    return {name: Global(name) for name in NAMES}


def _header(data: bytes) -> int:
    """Where the pickle begins; the header must promise one object."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(stream)
    if dtype.kind != "O" or math.prod(shape) != 1:
        raise ValueError(f"it holds {math.prod(shape)} elements of the type {dtype}")
    return stream.tell()


def _no_storage(_):
    raise ValueError("a persistent id")


def _state(found) -> tuple:
    """(version, shape, dtype, fortran, data) of a pickled ndarray."""
    if not isinstance(found, Inert) or "_reconstruct" not in found.name:
        raise ValueError("something that is no array")
    state = found.args[2] if found.name.startswith("jax") else found.fields.get("state")
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("an array without a state")
    return state


def _array(found) -> np.ndarray:
    _, shape, dtype, fortran, raw = _state(found)
    if isinstance(raw, Inert):  # protocol 2 writes bytes as text in latin-1
        raw = raw.args[0].encode("latin-1")
    kind = dtype.args[0] if isinstance(dtype, Inert) else None
    if kind not in KINDS or not isinstance(raw, bytes):
        raise ValueError(f"an array of the type {kind!r:.20}")
    order = dtype.fields["state"][1] if dtype.fields else "="
    flat = np.frombuffer(raw, np.dtype(kind).newbyteorder(order))
    return flat.reshape(shape, order="F" if fortran else "C").astype(np.dtype(kind), copy=False)
