"""Where arrays lie: a mesh of data, fsdp and tensor, and rules from paths to places."""

from __future__ import annotations

import functools
import math
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..errors import UserError
from .data import Share

AXES = ("data", "fsdp", "tensor")
ROWS = PartitionSpec(("data", "fsdp"))  # how examples are spread
_WORTH = 1024  # elements below which an array is kept whole

_DOWN = "(to_q|to_k|to_v|q_proj|k_proj|v_proj|net_0/proj|fc1)/kernel$"
_UP = "(to_out_0|out_proj|net_2|fc2)/kernel$"
# Megatron's pairs: the first product splits its outputs, the second its inputs, one sum after both.
NETWORK_RULES = (
    (_DOWN, PartitionSpec(None, "tensor")),
    (_UP, PartitionSpec("tensor", None)),
)


def parse_mesh(text: str, count: int) -> dict[str, int]:
    """{axis: size} of "data=2,fsdp=2,tensor=2"; -1 is what is left of `count` devices.

    Raises:
      UserError: unknown axis, more than one -1, or sizes that do not make `count`.
    """
    sizes = dict.fromkeys(AXES, 1)
    for part in filter(None, text.replace(" ", "").split(",")):
        name, _, size = part.partition("=")
        if name not in AXES or not re.fullmatch(r"-1|[1-9]\d*", size):
            raise UserError(f"mesh={text!r}: {part!r} is not one of {', '.join(AXES)} =number")
        sizes[name] = int(size)
    free = [name for name, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size > 0)
    if len(free) == 1 and count % known == 0:
        sizes[free[0]] = count // known
    if math.prod(sizes.values()) != count or len(free) > 1:
        raise UserError(f"mesh={text!r} does not fit {count} device(s); let the sizes multiply to "
                        f"{count}, or give one axis -1")  # fmt: skip
    return sizes


def make_mesh(text: str = "data=-1", devices: Any = None) -> Mesh:
    """The mesh of a config's `mesh` over all devices (of all processes)."""
    devices = jax.devices() if devices is None else devices
    shape = tuple(parse_mesh(text, len(devices)).values())
    on_torus = devices[0].platform == "tpu"
    return Mesh(_of_tpus(shape, devices) if on_torus else np.reshape(devices, shape), AXES)


def _of_tpus(shape: tuple[int, ...], devices: Any) -> np.ndarray:
    """TPUs in an order in which neighbours are near; slices of a pod differ along `data` alone.

    An axis may be a part of a pod's side: fsdp=8 of 16x16.
    """
    from jax.experimental import mesh_utils

    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if shape[0] % slices:
        raise UserError(f"mesh: data={shape[0]} must divide by the {slices} slices of the machine")
    inner = (shape[0] // slices, *shape[1:])
    return mesh_utils.create_hybrid_device_mesh(
        inner, (slices, 1, 1), devices, allow_split_physical_axes=True
    )


def place(shape: tuple[int, ...], path: str, mesh: Mesh, rules: tuple) -> PartitionSpec:
    """Where an array of this path lies: its rule, then fsdp on its largest dimension that divides.

    A rule's axis that does not divide its dimension is dropped; small arrays are kept whole.
    """
    found = next((spec for pattern, spec in rules if re.search(pattern, path)), ())
    axes = [_fits(axis, size, mesh) for axis, size in zip((*found, *[None] * 8), shape)]  # noqa: B905
    ways = mesh.shape["fsdp"]
    if ways > 1 and math.prod(shape) >= _WORTH and "fsdp" not in axes:
        free = [i for i, axis in enumerate(axes) if axis is None and shape[i] % ways == 0]
        if free:
            axes[max(free, key=lambda i: shape[i])] = "fsdp"
    return PartitionSpec(*axes)


def _fits(axis, size, mesh):
    return axis if axis and mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0 else None


def shardings(tree: Any, mesh: Mesh, rules: tuple) -> Any:
    """A NamedSharding for every array of a tree (arrays or their shapes), by `place`."""

    def one(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, place(leaf.shape, name, mesh, rules))

    return jax.tree_util.tree_map_with_path(one, tree)


@functools.cache
def share(mesh: Mesh, process: int | None = None) -> Share:
    """The parts of a global batch, of data times fsdp parts, that a process (this one) loads.

    On a pod they rarely follow each other: neighbours in the mesh are neighbours on the torus, and
    a host has a square of it.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    process = jax.process_index() if process is None else process
    places = NamedSharding(mesh, ROWS).devices_indices_map((ways,)).items()
    own = {part[0].start or 0 for device, part in places if device.process_index == process}
    return Share(tuple(sorted(own)), ways)


def spread(batch: Any, mesh: Mesh) -> Any:
    """This process's part of a batch as arrays over all devices, examples over data and fsdp."""
    own, place = share(mesh), NamedSharding(mesh, ROWS)

    def one(x):
        x, count = np.asarray(x), len(x) * own.of // len(own.parts)
        row = {start: k for k, start in enumerate(own.rows(count))}

        def part(index):
            start, stop, _ = index[0].indices(count)
            return x[row[start] :][: stop - start]

        return jax.make_array_from_callback((count, *x.shape[1:]), place, part)

    return jax.tree.map(one, batch)
