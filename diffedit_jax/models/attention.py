"""The one door to attention: softmax(scale q k^T + bias) v, by the cheapest fitting kernel."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffedit_jax.core.control import Control, Site

Queries = Float[Array, "n q heads d"]
Keys = Float[Array, "n k heads d"]
Bias = Float[Array, "#n #heads #q k"] | None

# Below this many scores per head and row the plain form is faster than a loop over tiles.
PLAIN_SCORES = 256 * 256
TILE_SCORES = 1 << 20  # scores of one tile: 4 MB, what a core's cache holds
TILE_QUERIES = (128, 1024)


def attention(
    q: Queries,
    k: Keys,
    v: Keys,
    *,
    scale: float,
    bias: Bias = None,
    control: Control | None = None,
    site: Site | None = None,
    operands: Any = None,
    kernel: str = "auto",
) -> tuple[Queries, Any]:
    """softmax(scale q k^T + bias) v per head, and what a control read (or None).

    Sums and softmax are float32; `operands` is the element type that the products read (None:
    that of q). Explicit probabilities exist only where `control.wants(site)`. `kernel` is "auto"
    (by backend and size) or a name in KERNELS. Returns the dtype of q.
    """
    operands = q.dtype if operands is None else operands
    if control is not None and site is not None and control.wants(site):
        return _controlled(q, k, v, scale, bias, control, site, operands)
    name = choose_kernel(q, k, bias) if kernel == "auto" else kernel
    return KERNELS[name](q, k, v, scale, bias, operands).astype(q.dtype), None


def choose_kernel(q: Any, k: Any, bias: Any) -> str:
    """The kernel that "auto" stands for, from backend and sizes."""
    backend = jax.default_backend()
    if backend == "tpu" and bias is None:
        return "flash"
    if q.shape[1] * k.shape[1] <= PLAIN_SCORES:
        return "plain"
    return "fused" if backend == "gpu" and bias is None else "tiled"


def probabilities(
    q: Queries,
    k: Keys,
    scale: float,
    bias: Bias,
    operands: Any,
) -> Float[Array, "n heads q k"]:
    """softmax(scale q k^T + bias) over keys, float32."""
    scores = scale * jnp.einsum(
        "nqhd,nkhd->nhqk",
        q.astype(operands),
        k.astype(operands),
        preferred_element_type=jnp.float32,
    )
    return jax.nn.softmax(scores if bias is None else scores + bias, axis=-1)


def weighted_values(probs: Float[Array, "n heads q k"], v: Keys, operands: Any) -> Queries:
    """probs v per head, float32 sums."""
    return jnp.einsum(
        "nhqk,nkhd->nqhd",
        probs.astype(operands),
        v.astype(operands),
        preferred_element_type=jnp.float32,
    )


def _controlled(q, k, v, scale, bias, control, site, operands):
    probs, read = control(probabilities(q, k, scale, bias, operands), site)
    return weighted_values(probs, v, operands).astype(q.dtype), read


def plain(q: Queries, k: Keys, v: Keys, scale: float, bias: Bias, operands: Any) -> Queries:
    """The whole score matrix at once: best for few tokens."""
    return weighted_values(probabilities(q, k, scale, bias, operands), v, operands)


def tiled(q: Queries, k: Keys, v: Keys, scale: float, bias: Bias, operands: Any) -> Queries:
    """One tile of queries of one head at a time; O(TILE_SCORES) memory, also under grad.

    Scores are in units of log 2 (scale * log2(e) folded into q), so the softmax uses exp2; each
    tile is recomputed in the backward pass.
    """
    n, tokens, heads, width = q.shape
    tile = min(tile_of(k.shape[1]), tokens)
    count = -(-tokens // tile)
    q = (q.astype(jnp.float32) * (scale * math.log2(math.e))).astype(operands)
    q = jnp.pad(q, ((0, 0), (0, count * tile - tokens), (0, 0), (0, 0)))
    q = q.reshape(n, count, tile, heads, width).transpose(0, 3, 1, 2, 4)
    rows = (
        q.reshape(n * heads, count, tile, width),
        k.astype(operands).transpose(0, 2, 1, 3).reshape(n * heads, -1, width),
        v.astype(operands).transpose(0, 2, 1, 3).reshape(n * heads, -1, width),
        _tiled_bias(bias, n, heads, tokens, k.shape[1], count, tile),
    )
    out = jax.lax.map(_one_head, rows).reshape(n, heads, count * tile, width)
    return out[:, :, :tokens].transpose(0, 2, 1, 3)


def tile_of(keys: int) -> int:
    """Queries in a tile: as many as TILE_SCORES allows for this number of keys."""
    low, high = TILE_QUERIES
    return max(low, min(high, TILE_SCORES // keys))


def _one_head(row):
    q, k, v, bias = row

    @jax.checkpoint
    def one_tile(pair):
        q_tile, bias_tile = pair
        scores = jnp.matmul(q_tile, k.T, preferred_element_type=jnp.float32)
        scores = scores if bias_tile is None else scores + bias_tile
        top = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
        weights = jnp.exp2(scores - top)
        out = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
        return out / weights.sum(-1, keepdims=True)

    return jax.lax.map(one_tile, (q, bias))


def _tiled_bias(bias, n, heads, tokens, keys, count, tile):
    """bias * log2(e) as [n heads, tiles, tile or 1, keys], or None."""
    if bias is None:
        return None
    bias = bias.astype(jnp.float32) * math.log2(math.e)
    queries = bias.shape[2]
    bias = jnp.broadcast_to(bias, (n, heads, queries, keys))
    if queries == 1:
        return jnp.broadcast_to(bias[:, :, None], (n, heads, count, 1, keys)).reshape(
            n * heads, count, 1, keys
        )
    bias = jnp.pad(bias, ((0, 0), (0, 0), (0, count * tile - tokens), (0, 0)))
    return bias.reshape(n * heads, count, tile, keys)


def fused(q: Queries, k: Keys, v: Keys, scale: float, bias: Bias, operands: Any) -> Queries:
    """XLA's fused attention on GPU (cuDNN for 16-bit operands and head_dim <= 128)."""
    half = operands in (jnp.bfloat16, jnp.float16) and q.shape[-1] <= 128 and q.shape[-1] % 8 == 0
    return jax.nn.dot_product_attention(
        q.astype(operands),
        k.astype(operands),
        v.astype(operands),
        bias=bias,
        scale=scale,
        implementation="cudnn" if half else "xla",
    )


def flash(q: Queries, k: Keys, v: Keys, scale: float, bias: Bias, operands: Any) -> Queries:
    """Our Pallas kernel on TPU; scores never leave the chip's vector memory."""
    from diffedit_jax.models.attention_tpu import PLAIN_SCORES, attention_tpu

    if bias is not None or q.shape[1] * k.shape[1] <= PLAIN_SCORES:
        return plain(q, k, v, scale, bias, operands)
    return attention_tpu(q, k, v, scale, operands)


KERNELS = {"plain": plain, "tiled": tiled, "fused": fused, "flash": flash}
