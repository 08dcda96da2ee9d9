"""A training state as a flat dict of arrays, and back; what a checkpoint holds is told by names."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def shapes_of(state: Any) -> Any:
    """The shapes, types and places of a state's arrays, for `Checkpoints.restore`."""
    return jax.tree.map(_shape, state)


def named(tree: Any, *, abstract: bool = False) -> dict[str, Any]:
    """{"/"-joined path: array} of every leaf; `abstract`: their shapes and shardings instead."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        key = jax.tree_util.keystr(path, simple=True, separator="/") or "value"
        found[key] = _shape(_array(leaf)) if abstract else _array(leaf)
    return found


def merged(tree: Any, arrays: dict[str, Any]) -> Any:
    """The tree with its leaves taken from `named`'s dict."""
    names = named(tree, abstract=True)
    return jax.tree.structure(tree).unflatten([arrays[name] for name in names])


def places(arrays: dict[str, Any]) -> dict[str, str]:
    """{name: "float32[3, 4]"}."""
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in arrays.items()}


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


def _array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "sharding") else jnp.asarray(leaf)
