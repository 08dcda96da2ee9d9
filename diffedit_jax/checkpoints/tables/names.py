"""The one rule between torch keys and our parameter trees, in both directions.

    down_blocks.0.resnets.1.conv1.weight  <->  down_blocks_0/resnets_1/conv1/kernel

A numeric part is glued to the part before it; `weight` becomes kernel, scale or embedding.
Linear kernels are transposed to [in, out], convolutions go from OIHW to HWIO.
"""

import re

import numpy as np

Path = tuple[str, ...]

EMBEDDINGS = re.compile(r"(token|position)_embedding|(word|position|token_type)_embeddings")
NORMS = re.compile(r".*(norm|layrnorm|LayerNorm)\w*")
# Modules that are lists in torch; other names that end in a number (linear_1) are just names.
LISTS = (
    *("down_blocks", "up_blocks", "resnets", "attentions", "transformer_blocks"),
    *("downsamplers", "upsamplers", "net", "to_out", "layers", "layer"),
    *("features", "blocks"),
)
GLUED = re.compile(rf"({'|'.join(LISTS)})_(\d+)")
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def path_of(key: str) -> Path:
    """The place of a torch key in our tree.

    path_of("to_out.0.weight") == ("to_out_0", "kernel")
    """
    parts: list[str] = []
    for part in key.split("."):
        if part.isdigit() and parts:
            parts[-1] += f"_{part}"
        else:
            parts.append(part)
    if parts[-1] == "weight":
        parts[-1] = _leaf(parts[-2] if len(parts) > 1 else "")
    return tuple(parts)


def _leaf(parent: str) -> str:
    if EMBEDDINGS.fullmatch(parent):
        return "embedding"
    return "scale" if NORMS.fullmatch(parent) else "kernel"


def key_of(path: Path) -> str:
    """The torch key of a place in our tree: the inverse of `path_of`."""
    parts = [GLUED.sub(r"\1.\2", part) if GLUED.fullmatch(part) else part for part in path[:-1]]
    return ".".join([*parts, LEAVES.get(path[-1], path[-1])])


def to_ours(array: np.ndarray, leaf: str) -> np.ndarray:
    """A torch tensor in our axis order: [out, in] -> [in, out], OIHW -> HWIO. A view."""
    if leaf == "kernel" and array.ndim == 2:
        return array.T
    if leaf == "kernel" and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array


def to_torch(array: np.ndarray, leaf: str) -> np.ndarray:
    """The inverse of `to_ours`: [in, out] -> [out, in], HWIO -> OIHW. A view."""
    if leaf == "kernel" and array.ndim == 2:
        return array.T
    if leaf == "kernel" and array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array


def torch_shape(shape: tuple[int, ...], leaf: str) -> tuple[int, ...]:
    """The shape that a place of our tree has in a torch file."""
    if leaf == "kernel" and len(shape) == 2:
        return shape[::-1]
    if leaf == "kernel" and len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    return tuple(shape)
