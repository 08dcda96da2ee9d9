"""The names that a torch checkpoint may use, and what each of them becomes here: numpy arrays.

Source: torch/_utils.py (_rebuild_tensor_v2, _rebuild_parameter), torch/serialization.py
(persistent ids of storages) for the meaning of the arguments.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from diffedit_jax.checkpoints.pickle_machine import Global, Inert

DEPTH_LIMIT = 32
BROADCAST_LIMIT = 2**24  # elements of a tensor that repeats its storage (an expanded view)
STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "UntypedStorage": np.uint8,
}
SCALAR_TYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
}
# Classes met in published Stable Diffusion files, whose content nobody needs.
HARMLESS = (
    "_codecs.encode",
    "argparse.Namespace",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "pathlib.PosixPath",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "torch.device",
    "torch.nn.modules.container.ParameterDict",
    "torch.nn.modules.container.ParameterList",
    "torch.nn.modules.container.ModuleDict",
)


@dataclass(eq=False)
class Storage:
    """A flat array; `data` is filled in later by the legacy format, which stores it behind."""

    dtype: np.dtype
    count: int
    data: np.ndarray | None = None


@dataclass(eq=False)
class Tensor:
    """A view into a storage, not yet looked at: sizes and strides in elements."""

    storage: Storage
    offset: int
    size: tuple
    stride: tuple
    dtype: np.dtype | None = None

    def array(self) -> np.ndarray:
        """The view as a read-only numpy array.

        Raises: ValueError when it reaches outside the storage or repeats it absurdly often.
        """
        flat = self.storage.data
        if flat is None:
            raise ValueError("a tensor's storage is missing from the file")
        flat = flat if self.dtype is None else flat.view(self.dtype)
        self._check(len(flat))
        if math.prod(self.size) == 0:
            return np.zeros(self.size, flat.dtype)
        steps = [step * flat.dtype.itemsize for step in self.stride]
        start = flat[self.offset :]
        return np.lib.stride_tricks.as_strided(start, self.size, steps, writeable=False)

    def _check(self, count: int) -> None:
        numbers = (self.offset, *self.size, *self.stride)
        if any(type(n) is not int or not 0 <= n < 2**40 for n in numbers):
            raise ValueError("a tensor has a negative or absurd size, stride or offset")
        if len(self.size) != len(self.stride) or len(self.size) > 16:
            raise ValueError("a tensor has sizes and strides of different lengths")
        elements = math.prod(self.size)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if elements and last >= count:
            raise ValueError(f"a tensor of shape {list(self.size)} reaches outside its storage")
        if elements > max(count, BROADCAST_LIMIT):
            raise ValueError(f"a tensor repeats {count} stored numbers {elements} times")


def _rebuild_tensor(storage, offset, size, stride, *_unused) -> Tensor:
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    if not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise TypeError("a tensor whose size or stride is not a tuple")
    return Tensor(storage, offset, size, stride)


def _rebuild_tensor_v3(storage, offset, size, stride, _grad, _hooks, dtype, *_unused) -> Tensor:
    tensor = _rebuild_tensor(storage, offset, size, stride)
    if not isinstance(dtype, Global) or not isinstance(dtype.build, np.dtype):
        raise TypeError("a tensor of an unknown dtype")
    tensor.dtype = dtype.build
    return tensor


def _rebuild_parameter(tensor, *_unused) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError("a parameter without a tensor")
    return tensor


def _ordered_dict(items=()) -> dict:
    found: dict = {}
    for key, value in items:
        if not isinstance(key, str):
            raise TypeError("an ordered dictionary with a key that is not text")
        found[key] = value
    return found


def _size(items=()) -> tuple:
    return tuple(items)


def _set(items=()) -> frozenset:
    """Old modules keep names of buffers in one; a ParameterDict of torch 1.7 to 2.x has it."""
    if not all(isinstance(item, str) for item in items):
        raise TypeError("a set of something that is not text")
    return frozenset(items)


def allowed_names(classes: Sequence[str] = ()) -> dict[str, Global]:
    """Every name that may appear in a checkpoint, with what answers a call of it.

    Objects of `classes` are kept as their fields, like those of HARMLESS.

    Storage types and dtypes carry a numpy dtype in `build`; calling them is refused, since a
    dtype is not something that a checkpoint calls.
    """
    functions = {
        "collections.OrderedDict": _ordered_dict,
        "torch.Size": _size,
        "builtins.set": _set,
        "__builtin__.set": _set,
        "torch._utils._rebuild_tensor": _rebuild_tensor,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
        "torch._utils._rebuild_parameter": _rebuild_parameter,
    }
    kinds = {f"torch.{name}": np.dtype(kind) for name, kind in {**STORAGES, **SCALAR_TYPES}.items()}
    kinds["torch.storage.UntypedStorage"] = np.dtype(np.uint8)
    harmless = dict.fromkeys((*HARMLESS, *classes))
    return {name: Global(name, build) for name, build in {**functions, **kinds, **harmless}.items()}


def storage_dtype(kind) -> np.dtype:
    """The dtype that a persistent id's storage class stands for; ValueError for another thing."""
    if not isinstance(kind, Global) or not isinstance(kind.build, np.dtype):
        raise ValueError("a storage of an unknown type")
    return kind.build


def arrays(value):
    """Replaces every Tensor in nested plain containers by its array; Inert objects give fields.

    Each object is converted once, and depth is bounded, so that a small file cannot unfold
    into an endless structure. Raises: ValueError.
    """
    return _arrays(value, {}, 0)


def _arrays(value, done: dict, depth: int):
    if depth > DEPTH_LIMIT:
        raise ValueError(f"containers are nested more than {DEPTH_LIMIT} deep")
    if id(value) not in done:
        done[id(value)] = _convert(value, done, depth + 1)
    return done[id(value)]


def _convert(value, done: dict, depth: int):
    if isinstance(value, Tensor):
        return value.array()
    if isinstance(value, Inert):
        value = value.fields
    if isinstance(value, dict):
        return {key: _arrays(item, done, depth) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_arrays(item, done, depth) for item in value)
    return value
