"""A network with its parameters, as one compiled program per shape, products in full float32."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from flax import struct

from diffedit_jax.checkpoints.load import load
from diffedit_jax.errors import UserError


class Judge(struct.PyTreeNode):
    """`judge(*arrays)` gives (result, named features); parameters are leaves, so it can be mapped,
    sharded and differentiated.
    """

    params: Any
    module: Any = struct.field(pytree_node=False)

    def __call__(self, *arrays: Any) -> tuple[Any, dict]:
        with jax.default_matmul_precision("highest"):
            return _applied(self, arrays)


@jax.jit
def _applied(judge: Judge, arrays: tuple) -> tuple[Any, dict]:
    return judge.module.apply({"params": judge.params}, *arrays)


def fill(module: Any, weights: Mapping, where: str, *example: jax.ShapeDtypeStruct) -> Judge:
    """The module with weights of canonical names, strictly checked.

    Raises: UserError naming every tensor that does not fit.
    """
    return Judge(load(_shapes(module, example), dict(weights), where), module)


@functools.lru_cache(maxsize=16)
def _shapes(module: Any, example: tuple) -> Mapping:
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *_zeros(example)))["params"]


def _zeros(example: tuple) -> list:
    return [jax.numpy.zeros(each.shape, each.dtype) for each in example]


def existing(path: str | Path, what: str) -> Path:
    """`path` where it exists. Raises: UserError."""
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{what}: {path} does not exist")
    return path
