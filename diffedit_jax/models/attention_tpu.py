"""Attention on TPU by Pallas kernels that neither pad the head dim nor write scores to HBM.

Here is what surrounds them: gradients, `vmap`, and devices of a mesh. The kernels are in
`attention_kernels.py`. For chips from v5e on: earlier ones have less vector memory (VMEM) than the
kernels ask for.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffedit_jax.models.attention_kernels import backward_kernel, forward_kernel

PLAIN_SCORES = 128 * 128  # up to this many scores per head XLA's own form is as good


def attention_tpu(
    q: Float[Array, "n q heads d"],
    k: Float[Array, "n k heads d"],
    v: Float[Array, "n k heads d"],
    scale: float,
    operands: Any,
    *,
    interpret: bool = False,
) -> Float[Array, "n q heads d"]:
    """softmax(scale q k^T) v per head, with float32 softmax and sums; returns `operands`.

    Differentiable once, in reverse: the backward pass makes the scores again, tile by tile.
    Batches by `jax.vmap` and splits over devices along its rows without communication.
    `interpret` runs the kernels on any backend, slowly (tests).

    Source: Dao et al. 2022 (2205.14135), algorithms 1 and 4, and their running softmax.
    """
    n, tokens, heads, width = q.shape
    q, k, v = (a.astype(operands).reshape(*a.shape[:2], heads * width) for a in (q, k, v))
    return _differentiable(heads, scale, interpret)(q, k, v).reshape(n, tokens, heads, width)


@functools.lru_cache(maxsize=256)
def _differentiable(heads: int, scale: float, interpret: bool):
    """One function per kind of layer; what the backward pass reads is made only under grad."""

    def ready(kernel, **options):
        options |= dict(heads=heads, scale=scale, interpret=interpret)
        return _batched(_split(functools.partial(kernel, **options)))

    alone, keeping = ready(forward_kernel), ready(forward_kernel, keep=True)
    backward = ready(backward_kernel)

    @jax.custom_vjp
    def both(q, k, v):
        return alone(q, k, v)[0]

    def forward(q, k, v):
        out, norms = keeping(q, k, v)
        return out, (q, k, v, out, norms)

    both.defvjp(forward, lambda saved, slope: backward(*saved, slope))
    return both


def _batched(call):
    """vmap folds every further axis into the rows: one kernel, whatever the nesting."""
    batched = jax.custom_batching.custom_vmap(call)

    @batched.def_vmap
    def fold(size, is_batched, *parts):
        full = [
            part if there else jnp.broadcast_to(part, (size, *part.shape))
            for part, there in zip(parts, is_batched, strict=True)
        ]
        outs = batched(*(part.reshape(-1, *part.shape[2:]) for part in full))
        apart = tuple(out.reshape(size, -1, *out.shape[1:]) for out in outs)
        return apart, (True,) * len(apart)

    return batched


def _split(call):
    """Each device runs the kernel on its own rows; the compiler cannot split a kernel itself."""

    def on_mesh(*parts):
        mesh = jax.typeof(parts[0]).sharding.mesh
        axes = row_axes(mesh, parts[0].shape[0])
        if mesh.empty or mesh.size == 1 or not mesh.auto_axes:
            return call(*parts)
        spec = jax.sharding.PartitionSpec(axes or None)
        return jax.shard_map(call, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(
            *parts
        )

    return on_mesh


def row_axes(mesh: Any, rows: int) -> tuple[str, ...]:
    """The mesh axes over which rows are split: as many of the first ones as divide their number."""
    axes, count = [], 1
    for name in mesh.auto_axes:
        count *= mesh.shape[name]
        if rows % count:
            break
        axes.append(name)
    return tuple(axes)
