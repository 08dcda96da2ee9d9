"""Attention on TPU in one Pallas kernel that neither pads the head dim nor writes scores to HBM.

The operands keep the shape in which the projections make them, [rows, tokens, heads * head_dim]:
eight heads of 40 are 320 lanes in HBM, not eight times 128, and nothing is transposed. Heads are
cut out inside the chip's vector memory (VMEM), where scores live and die one tile at a time.
For chips from v5e on: earlier ones have less VMEM than the sizes below ask for.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Merged = Float[Array, "n tokens width"]

QUERY_TILE = 512  # queries whose scores are in VMEM at once
KEY_TILE = 1024  # keys in one step of the running softmax
RESIDENT_BYTES = 4 << 20  # keys (and as much again of values) of one row that VMEM holds at once
VMEM_BYTES = 48 << 20  # what one kernel may use
PLAIN_SCORES = 128 * 128  # up to this many scores per head XLA's own form is as good
NEVER = -1e30  # a score that no key has; finite, so that differences stay finite


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

    Differentiable: the backward pass is that of an XLA form that recomputes tiles of queries.
    Batches by `jax.vmap` and splits over devices along its rows without communication.
    `interpret` runs the kernel on any backend, slowly (tests).

    Source: Dao et al. 2022 (2205.14135), algorithm 1, and its running softmax.
    """
    n, tokens, heads, width = q.shape
    q, k, v = (a.astype(operands).reshape(*a.shape[:2], heads * width) for a in (q, k, v))
    return _differentiable(heads, scale, interpret)(q, k, v).reshape(n, tokens, heads, width)


@functools.lru_cache(maxsize=256)
def _differentiable(heads: int, scale: float, interpret: bool):
    """One function per kind of layer: kernel forward, blocked XLA form backward."""
    forward = _batched(_split(functools.partial(_call, heads, scale, interpret)))
    blocked = functools.partial(blocked_attention, heads=heads, scale=scale)
    both = jax.custom_vjp(forward)
    both.defvjp(
        lambda q, k, v: (forward(q, k, v), (q, k, v)),
        lambda saved, slope: jax.vjp(blocked, *saved)[1](slope),
    )
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
        out = batched(*(part.reshape(-1, *part.shape[2:]) for part in full))
        return out.reshape(size, -1, *out.shape[1:]), True

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


def _call(heads: int, scale: float, interpret: bool, q: Merged, k: Merged, v: Merged) -> Merged:
    """The kernel over a grid of (row, tile of queries, block of keys)."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    n, tokens, width = q.shape
    keys = k.shape[1]
    tile, block = min(QUERY_TILE, tokens), key_block(keys, width, q.dtype)
    blocks = -(-keys // block)
    k, v = (jnp.pad(a, ((0, 0), (0, blocks * block - keys), (0, 0))) for a in (k, v))
    head = width // heads
    kernel = functools.partial(_kernel, heads=heads, scale=scale, keys=keys, blocks=blocks)
    rows = pl.BlockSpec((None, block, width), lambda i, j, b: (i, b, 0))
    return pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        grid=(n, -(-tokens // tile), blocks),
        in_specs=[pl.BlockSpec((None, tile, width), lambda i, j, b: (i, j, 0)), rows, rows],
        out_specs=pl.BlockSpec((None, tile, width), lambda i, j, b: (i, j, 0)),
        scratch_shapes=[
            pltpu.VMEM((heads, tile, 1), jnp.float32),
            pltpu.VMEM((heads, tile, 1), jnp.float32),
            pltpu.VMEM((heads, tile, head), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=VMEM_BYTES,
        ),
        cost_estimate=pl.CostEstimate(
            flops=4 * n * tokens * blocks * block * width,
            bytes_accessed=2 * n * (tokens + blocks * block) * width * q.dtype.itemsize,
            transcendentals=n * heads * tokens * blocks * block,
        ),
        name=f"edit_attention_{heads}x{head}",
        interpret=interpret,
    )(q, k, v)


def key_block(keys: int, width: int, dtype: Any) -> int:
    """Keys that one grid step holds: all of them, or as many whole tiles as fit."""
    fit = RESIDENT_BYTES // (width * jnp.dtype(dtype).itemsize)
    if keys <= fit:
        return keys
    count = -(-keys // max(fit // KEY_TILE, 1) // KEY_TILE)
    return -(-keys // (count * KEY_TILE)) * KEY_TILE


def _kernel(q_ref, k_ref, v_ref, out_ref, top_ref, sum_ref, acc_ref, *, heads, scale, keys, blocks):
    """One block of keys seen by one tile of queries, head by head."""
    from jax.experimental import pallas as pl

    index, block = pl.program_id(2), k_ref.shape[0]
    width = q_ref.shape[1] // heads
    whole, rest = divmod(block, KEY_TILE)

    @pl.when(index == 0)
    def _():
        top_ref[...] = jnp.full_like(top_ref, NEVER)
        sum_ref[...] = jnp.zeros_like(sum_ref)
        acc_ref[...] = jnp.zeros_like(acc_ref)

    for head in range(heads):
        lanes = slice(head * width, (head + 1) * width)
        q = q_ref[:, lanes]

        def seen(start, count, state, q=q, lanes=lanes):
            k, v = k_ref[pl.ds(start, count), lanes], v_ref[pl.ds(start, count), lanes]
            hidden = keys - index * block - start if blocks * block > keys else None
            return running_softmax(q, k, v, scale, state, hidden)

        state = top_ref[head], sum_ref[head], acc_ref[head]
        if whole:
            state = jax.lax.fori_loop(
                0, whole, lambda i, s, seen=seen: seen(i * KEY_TILE, KEY_TILE, s), state
            )
        if rest:
            state = seen(whole * KEY_TILE, rest, state)
        top_ref[head], sum_ref[head], acc_ref[head] = state

    @pl.when(index == blocks - 1)
    def _():
        for head in range(heads):
            out = acc_ref[head] / sum_ref[head]
            out_ref[:, head * width : (head + 1) * width] = out.astype(out_ref.dtype)


def running_softmax(q, k, v, scale: float, state, visible=None):
    """Takes further keys into (m, l, o): m = max s, l = sum e^(s - m), o = sum e^(s - m) v.

    q: [q, d]; k, v: [k, d]; m, l: [q, 1]; o: [q, d] float32. Keys from number `visible` on are
    padding. Scores stay unscaled until the exponent: e^(scale (s - m)) = 2^(scale log2(e) (s - m)).
    """
    top, total, acc = state
    scores = jax.lax.dot_general(q, k, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    if visible is not None:
        column = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
        scores = jnp.where(column < visible, scores, NEVER)
    new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
    factor = scale * math.log2(math.e)
    weights = jnp.exp2((scores - new_top) * factor)
    shrink = jnp.exp2((top - new_top) * factor)
    added = jnp.dot(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    total = shrink * total + weights.sum(-1, keepdims=True)
    return new_top, total, shrink * acc + added


def blocked_attention(q: Merged, k: Merged, v: Merged, *, heads: int, scale: float) -> Merged:
    """The same in XLA: all heads of one tile of queries at a time, recomputed under grad."""
    n, tokens, width = q.shape
    tile = min(QUERY_TILE, tokens)
    count = -(-tokens // tile)
    k, v = (a.reshape(*a.shape[:2], heads, -1) for a in (k, v))
    q = jnp.pad(q, ((0, 0), (0, count * tile - tokens), (0, 0)))
    tiles = q.reshape(n, count, tile, heads, -1).swapaxes(0, 1)

    @jax.checkpoint
    def one(part):
        options = dict(preferred_element_type=jnp.float32)
        scores = jnp.einsum("nqhd,nkhd->nhqk", part, k, **options) * scale
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        return jnp.einsum("nhqk,nkhd->nqhd", weights, v, **options).astype(q.dtype)

    out = jax.lax.map(one, tiles).swapaxes(0, 1)
    return out.reshape(n, count * tile, width)[:, :tokens]
