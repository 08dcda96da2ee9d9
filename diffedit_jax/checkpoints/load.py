"""Strict loading: every tensor of the network, nothing else, right shapes, finite numbers."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffedit_jax.checkpoints.tables.names import key_of, to_ours, to_torch, torch_shape
from diffedit_jax.errors import UserError

Weights = dict[str, np.ndarray]

LIST_LIMIT = 20  # mismatches that are spelt out; the rest is counted
# A 1x1 convolution and a linear layer are the same map; files use both forms for these.
EITHER_RANK = re.compile(r"(.*\.)?proj_(in|out)\.weight")


def load(
    expected: Mapping,
    weights: Weights,
    where: str,
    *,
    dtype: Any = jnp.float32,
    place: Callable[[np.ndarray], Any] = jnp.asarray,
) -> dict:
    """Fills a parameter tree with the tensors of a file, in canonical torch names.

    Args:
      expected: nested dict of shaped leaves, as `jax.eval_shape` of the module's init gives.
      weights: {torch key: array}, canonical names (diffusers; transformers without prefix).
      where: names the network and file in errors.
      dtype: of the parameters.
      place: puts one host array where it belongs (a device, a mesh).

    Returns: nested dict of arrays.
    Raises: UserError, one line that lists every missing, unknown, misshapen, not finite and
    non-float tensor by name and shape.

        params = load(jax.eval_shape(init)["params"], weights, "unet of ./model")
    """
    wanted = {key_of(path): path for path in flatten_dict(expected)}
    fitted = _checked(expected, weights, where)
    found, bad = {}, []
    for key, path in wanted.items():
        array = np.array(to_ours(fitted[key], path[-1]), dtype, order="C")
        if not _finite(array):
            bad.append(f"{key} holds NaN or infinity")
        found[path] = place(array)
    _refuse(bad, where)
    return unflatten_dict(found)


def check(expected: Mapping, weights: Weights, where: str) -> None:
    """The checks of `load`, without keeping anything in memory."""
    fitted = _checked(expected, weights, where)
    bad = [f"{key} holds NaN or infinity" for key in fitted if not _finite(fitted[key])]
    _refuse(bad, where)


def _checked(expected: Mapping, weights: Weights, where: str) -> Weights:
    """The weights of exactly the expected tree, in the shapes that it wants."""
    shapes = {
        key_of(path): torch_shape(leaf.shape, path[-1])
        for path, leaf in flatten_dict(expected).items()
    }
    fitted = {key: _fitted(key, weights[key], shapes[key]) for key in shapes if key in weights}
    _refuse(_mismatches(shapes, weights, fitted), where)
    return fitted


def _finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(array.astype(np.float32, copy=False)).all())


def export(params: Mapping) -> Weights:
    """A parameter tree as {canonical torch key: array in torch's axis order}."""
    return {
        key_of(path): np.ascontiguousarray(to_torch(np.asarray(array), path[-1]))
        for path, array in flatten_dict(params).items()
    }


def _fitted(key: str, array: np.ndarray, shape: tuple) -> np.ndarray:
    """[C, C] for [C, C, 1, 1] and the other way round, where the two mean the same."""
    same = tuple(n for n in array.shape if n > 1) == tuple(n for n in shape if n > 1)
    if EITHER_RANK.fullmatch(key) and array.ndim != len(shape) and same:
        return array.reshape(shape)
    return array


def _mismatches(shapes: dict, weights: Weights, fitted: Weights) -> list[str]:
    missing = [f"{key} {list(shapes[key])} is missing" for key in shapes if key not in weights]
    extra = [
        f"{key} {list(weights[key].shape)} is not part of it"
        for key in weights
        if key not in shapes
    ]
    wrong = [
        f"{key} is {list(array.shape)}, must be {list(shapes[key])}"
        for key, array in fitted.items()
        if array.shape != shapes[key]
    ]
    kinds = [
        f"{key} has the dtype {array.dtype}, must be a float"
        for key, array in fitted.items()
        if not jnp.issubdtype(array.dtype, jnp.floating)
    ]
    return missing + extra + wrong + kinds


def _refuse(faults: list[str], where: str) -> None:
    if faults:
        more = len(faults) - LIST_LIMIT
        listed = "; ".join(faults[:LIST_LIMIT]) + (f"; and {more} more" if more > 0 else "")
        raise UserError(f"{where}: {len(faults)} tensors do not fit: {listed}")
