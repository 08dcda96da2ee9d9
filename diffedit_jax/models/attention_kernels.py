"""The two TPU kernels of attention: forward, and all three gradients in one pass.

The operands keep the shape in which the projections make them, [rows, tokens, heads * head_dim]:
eight heads of 40 are 320 lanes in HBM, not eight times 128, and nothing is transposed. Heads are
cut out inside the chip's vector memory (VMEM), where scores live and die one tile at a time.
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
FORWARD_VMEM, BACKWARD_VMEM = 48 << 20, 72 << 20  # what one kernel may use
NEVER = -1e30  # a score that no key has; finite, so that differences stay finite

_ROWS = (((1,), (1,)), ((), ()))  # products a b^T
_COLUMNS = (((0,), (0,)), ((), ()))  # products a^T b


def forward_kernel(
    q: Merged,
    k: Merged,
    v: Merged,
    *,
    heads: int,
    scale: float,
    interpret: bool,
    keep: bool = False,
) -> tuple[Array, ...]:
    """(softmax(scale q k^T) v per head,), and with `keep` what `backward_kernel` reads besides.

    That is log2 of the softmax's denominators, [n, tokens, heads] float32. The grid is (row, tile
    of queries, block of keys).
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    n, tokens, width = q.shape
    keys, head = k.shape[1], width // heads
    tile, block = min(QUERY_TILE, tokens), key_block(keys, width, q.dtype)
    blocks = -(-keys // block)
    k, v = (_padded(a, blocks * block) for a in (k, v))
    kernel = functools.partial(_forward, heads=heads, scale=scale, keys=keys, blocks=blocks)
    rows = pl.BlockSpec((None, block, width), lambda i, j, b: (i, b, 0))
    made = [(width, q.dtype)] + [(heads, jnp.float32)] * keep
    outs = pl.pallas_call(
        kernel,
        out_shape=[jax.ShapeDtypeStruct((n, tokens, size), dtype) for size, dtype in made],
        grid=(n, -(-tokens // tile), blocks),
        in_specs=[pl.BlockSpec((None, tile, width), lambda i, j, b: (i, j, 0)), rows, rows],
        out_specs=[pl.BlockSpec((None, tile, size), lambda i, j, b: (i, j, 0)) for size, _ in made],
        scratch_shapes=[
            pltpu.VMEM((heads, tile, 1), jnp.float32),
            pltpu.VMEM((heads, tile, 1), jnp.float32),
            pltpu.VMEM((heads, tile, head), jnp.float32),
        ],
        compiler_params=_compiler(FORWARD_VMEM),
        cost_estimate=pl.CostEstimate(
            flops=4 * n * tokens * blocks * block * width,
            bytes_accessed=2 * n * (tokens + blocks * block) * width * q.dtype.itemsize,
            transcendentals=n * heads * tokens * blocks * block,
        ),
        name=f"edit_attention_{heads}x{head}",
        interpret=interpret,
    )(q, k, v)
    return tuple(outs)


def backward_kernel(
    q: Merged,
    k: Merged,
    v: Merged,
    out: Merged,
    norms: Float[Array, "n tokens heads"],
    slope: Merged,
    *,
    heads: int,
    scale: float,
    interpret: bool,
) -> tuple[Merged, Merged, Merged]:
    """(dq, dk, dv) from the forward pass's inputs, results and the slope of its output.

    The grid is (row, block of keys, tile of queries). The gradients of a block of keys and values
    stay in VMEM, transposed (heads then lie one below the other, which cuts at no lane), until
    every query has added to them; a tile of queries has one gradient per block, summed at the end.
    """
    from jax.experimental import pallas as pl

    n, tokens, width = q.shape
    keys, head = k.shape[1], width // heads
    tile, block = min(QUERY_TILE, tokens), key_block(keys, width, q.dtype)
    tiles, blocks = -(-tokens // tile), -(-keys // block)
    k, v = (_padded(a, blocks * block) for a in (k, v))
    q, out, norms, slope = (_padded(a, tiles * tile) for a in (q, out, norms, slope))
    kernel = functools.partial(_backward, heads=heads, scale=scale, keys=keys, block=block)
    queries = pl.BlockSpec((None, tile, width), lambda i, b, j: (i, j, 0))
    denominators = pl.BlockSpec((None, tile, heads), lambda i, b, j: (i, j, 0))
    rows = pl.BlockSpec((None, block, width), lambda i, b, j: (i, b, 0))
    columns = pl.BlockSpec((None, heads, head, block), lambda i, b, j: (i, 0, 0, b))
    upright = jax.ShapeDtypeStruct((n, heads, head, blocks * block), jnp.float32)
    partial = jnp.float32 if blocks > 1 else q.dtype
    products, moved = 10 * n * tiles * tile * blocks * block * width, q.dtype.itemsize
    dq, dk, dv = pl.pallas_call(
        kernel,
        out_shape=[jax.ShapeDtypeStruct((blocks, *q.shape), partial), upright, upright],
        grid=(n, blocks, tiles),
        in_specs=[queries, rows, rows, queries, denominators, queries],
        out_specs=[
            pl.BlockSpec((None, None, tile, width), lambda i, b, j: (b, i, j, 0)),
            columns,
            columns,
        ],
        compiler_params=_compiler(BACKWARD_VMEM),
        cost_estimate=pl.CostEstimate(
            flops=products,
            bytes_accessed=n * width * (4 * blocks * tiles * tile * moved + 12 * blocks * block),
            transcendentals=n * heads * tiles * tile * blocks * block,
        ),
        name=f"edit_attention_gradients_{heads}x{head}",
        interpret=interpret,
    )(q, k, v, out, norms, slope)
    dq = dq[0] if blocks == 1 else dq.sum(0)
    across = (a.transpose(0, 3, 1, 2).reshape(n, -1, width)[:, :keys] for a in (dk, dv))
    return dq[:, :tokens].astype(q.dtype), *(a.astype(q.dtype) for a in across)


def key_block(keys: int, width: int, dtype: Any) -> int:
    """Keys that one grid step holds: all of them, or as many whole tiles as fit."""
    fit = RESIDENT_BYTES // (width * jnp.dtype(dtype).itemsize)
    if keys <= fit:
        return keys
    count = -(-keys // max(fit // KEY_TILE, 1) // KEY_TILE)
    return -(-keys // (count * KEY_TILE)) * KEY_TILE


def running_softmax(q, k, v, scale: float, state, visible=None):
    """Takes further keys into (m, l, o): m = max s, l = sum e^(s - m), o = sum e^(s - m) v.

    q: [q, d]; k, v: [k, d]; m, l: [q, 1]; o: [q, d] float32. Keys from number `visible` on are
    padding. Scores stay unscaled until the exponent: e^(scale (s - m)) = 2^(scale log2(e) (s - m)).
    """
    top, total, acc = state
    scores = _scores(q, k, visible)
    new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
    weights = jnp.exp2((scores - new_top) * _exponent(scale))
    shrink = jnp.exp2((top - new_top) * _exponent(scale))
    added = jnp.dot(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    total = shrink * total + weights.sum(-1, keepdims=True)
    return new_top, total, shrink * acc + added


def _forward(q_ref, k_ref, v_ref, out_ref, *refs, heads, scale, keys, blocks):
    """One block of keys seen by one tile of queries, head by head."""
    from jax.experimental import pallas as pl

    *kept, top_ref, sum_ref, acc_ref = refs
    index, block = pl.program_id(2), k_ref.shape[0]

    @pl.when(index == 0)
    def _():
        top_ref[...] = jnp.full_like(top_ref, NEVER)
        sum_ref[...] = jnp.zeros_like(sum_ref)
        acc_ref[...] = jnp.zeros_like(acc_ref)

    for head, lanes in _heads(q_ref, heads):
        q = q_ref[:, lanes]

        def seen(part, state, q=q, lanes=lanes):
            k, v = k_ref[part, lanes], v_ref[part, lanes]
            return running_softmax(q, k, v, scale, state, _visible(keys, index, block, part))

        state = top_ref[head], sum_ref[head], acc_ref[head]
        top_ref[head], sum_ref[head], acc_ref[head] = _over_tiles(block, seen, state)

    @pl.when(index == blocks - 1)
    def _():
        for head, lanes in _heads(q_ref, heads):
            out_ref[:, lanes] = (acc_ref[head] / sum_ref[head]).astype(out_ref.dtype)
            for ref in kept:
                norm = top_ref[head] * _exponent(scale) + jnp.log2(sum_ref[head])
                ref[:, head : head + 1] = norm


def _backward(
    q_ref, k_ref, v_ref, out_ref, norm_ref, slope_ref,  # what is read
    dq_ref, dk_ref, dv_ref,  # what is written
    *, heads, scale, keys, block,
):  # fmt: skip
    """One tile of queries meets one block of keys, head by head."""
    from jax.experimental import pallas as pl

    index = pl.program_id(1)

    @pl.when(pl.program_id(2) == 0)
    def _():
        dk_ref[...] = jnp.zeros_like(dk_ref)
        dv_ref[...] = jnp.zeros_like(dv_ref)

    for head, lanes in _heads(q_ref, heads):
        q, slope, norm = q_ref[:, lanes], slope_ref[:, lanes], norm_ref[:, head : head + 1]
        products = slope.astype(jnp.float32) * out_ref[:, lanes].astype(jnp.float32)
        mean = products.sum(-1, keepdims=True)  # of the slopes of a query's weights

        def seen(part, dq, head=head, lanes=lanes, q=q, slope=slope, norm=norm, mean=mean):
            k, v = k_ref[part, lanes], v_ref[part, lanes]
            scores = _scores(q, k, _visible(keys, index, block, part))
            weights = jnp.exp2(scores * _exponent(scale) - norm)
            slopes = (weights * (_product(slope, v, _ROWS) - mean)).astype(q.dtype)
            dv_ref[head, :, part] += _product(slope, weights.astype(q.dtype), _COLUMNS)
            dk_ref[head, :, part] += scale * _product(q, slopes, _COLUMNS)
            return dq + jnp.dot(slopes, k, preferred_element_type=jnp.float32)

        dq = _over_tiles(block, seen, jnp.zeros(q.shape, jnp.float32))
        dq_ref[:, lanes] = (scale * dq).astype(dq_ref.dtype)


def _heads(ref, heads: int):
    """(number, lanes) of each head in a block of merged heads."""
    width = ref.shape[1] // heads
    return [(head, slice(head * width, (head + 1) * width)) for head in range(heads)]


def _over_tiles(block: int, seen, state):
    """seen(part of the keys, state) for every tile of a block of keys; the last state."""
    from jax.experimental import pallas as pl

    whole, rest = divmod(block, KEY_TILE)
    if whole:

        def one(i, state):
            return seen(pl.ds(pl.multiple_of(i * KEY_TILE, KEY_TILE), KEY_TILE), state)

        state = jax.lax.fori_loop(0, whole, one, state)
    return seen(pl.ds(whole * KEY_TILE, rest), state) if rest else state


def _visible(keys: int, index, block: int, part) -> Any:
    """How many keys of a part are real; None where a block has no padding."""
    return None if keys % block == 0 else keys - index * block - part.start


def _scores(q, k, visible):
    scores = _product(q, k, _ROWS)
    if visible is None:
        return scores
    column = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    return jnp.where(column < visible, scores, NEVER)


def _product(a, b, dimensions):
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _exponent(scale: float) -> float:
    return scale * math.log2(math.e)


def _padded(a, tokens: int):
    return jnp.pad(a, ((0, 0), (0, tokens - a.shape[1]), (0, 0)))


def _compiler(vmem: int):
    from jax.experimental.pallas import tpu as pltpu

    return pltpu.CompilerParams(
        dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=vmem
    )
