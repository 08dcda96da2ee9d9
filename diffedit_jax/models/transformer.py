"""Transformer2D: self attention, cross attention and a gated MLP over the cells of a grid."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffedit_jax.core.control import Site
from diffedit_jax.models.attention import attention
from diffedit_jax.models.layers import Compute, Conv, GroupNorm, LayerNorm, Linear

Tokens = Float[Array, "n tokens c"]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a Transformer2D sits: path of names, "down", "mid" or "up", first attention's order."""

    path: str
    place: str
    order: int

    def site(self, block: int, cross: bool, grid: tuple[int, int], heads: int) -> Site:
        """The Site of one attention layer of block number `block`."""
        return Site(
            name=self.name(block, cross),
            kind="cross" if cross else "self",
            place=self.place,
            order=self.order + 2 * block + int(cross),
            height=grid[0],
            width=grid[1],
            heads=heads,
        )

    def name(self, block: int, cross: bool) -> str:
        """The layer's path in the parameter tree, which is also its name everywhere else."""
        return f"{self.path}/transformer_blocks_{block}/attn{1 + int(cross)}"


class CrossAttention(nn.Module):
    """to_out(attention(to_q x, to_k y, to_v y)): y is the context, or x itself."""

    features: int
    heads: int
    compute: Compute = Compute()

    def setup(self):
        self.to_q = Linear(self.features, self.compute, use_bias=False)
        self.to_k = Linear(self.features, self.compute, use_bias=False)
        self.to_v = Linear(self.features, self.compute, use_bias=False)
        self.to_out_0 = Linear(self.features, self.compute)

    def keys_values(self, context: Tokens) -> tuple[Any, Any]:
        """Keys and values of a context, each [n, tokens, heads, head_dim]."""
        split = (*context.shape[:2], self.heads, self.features // self.heads)
        return self.to_k(context).reshape(split), self.to_v(context).reshape(split)

    def __call__(self, x: Tokens, kv: Any, bias: Any, control: Any, site: Site) -> tuple:
        """`kv` is a pair from `keys_values`, or a context. Returns (y, what control read)."""
        k, v = kv if isinstance(kv, tuple) else self.keys_values(kv)
        width = self.features // self.heads
        q = self.to_q(x).reshape(*x.shape[:2], self.heads, width)
        y, read = attention(
            q,
            k,
            v,
            scale=width**-0.5,
            bias=bias,
            control=control,
            site=site,
            operands=self.compute.operand_dtype,
            kernel=self.compute.attention,
        )
        return self.to_out_0(y.reshape(*x.shape[:2], self.features)), read


class GatedProjection(nn.Module):
    """GEGLU: value * gelu(gate) with (value, gate) = split(x W + b); exact (erf) GELU."""

    features: int
    compute: Compute = Compute()

    def setup(self):
        self.proj = Linear(2 * self.features, self.compute)

    def __call__(self, x: Tokens) -> Float[Array, "n tokens features"]:
        value, gate = jnp.split(self.proj(x), 2, axis=-1)
        gate = jax.nn.gelu(gate.astype(jnp.float32), approximate=False)
        return (value * gate).astype(self.compute.dtype)


class FeedForward(nn.Module):
    """C -> 4C (gated) -> C."""

    features: int
    compute: Compute = Compute()

    def setup(self):
        self.net_0 = GatedProjection(4 * self.features, self.compute)
        self.net_2 = Linear(self.features, self.compute)

    def __call__(self, x: Tokens) -> Tokens:
        return self.net_2(self.net_0(x))


class TransformerBlock(nn.Module):
    """x += attn1(norm1 x); x += attn2(norm2 x, context); x += ff(norm3 x)."""

    features: int
    heads: int
    index: int
    where: Place
    compute: Compute = Compute()

    def setup(self):
        self.norm1 = LayerNorm(compute=self.compute)
        self.attn1 = CrossAttention(self.features, self.heads, self.compute)
        self.norm2 = LayerNorm(compute=self.compute)
        self.attn2 = CrossAttention(self.features, self.heads, self.compute)
        self.norm3 = LayerNorm(compute=self.compute)
        self.ff = FeedForward(self.features, self.compute)

    def keys_values(self, context: Tokens) -> dict[str, Any]:
        """{site name: (k, v)} of the cross attention."""
        return {self.where.name(self.index, True): self.attn2.keys_values(context)}

    def __call__(self, x: Tokens, grid: tuple, text: Any, control: Any) -> tuple:
        here = self.where.site(self.index, False, grid, self.heads)
        there = self.where.site(self.index, True, grid, self.heads)
        inner = self.norm1(x)
        y, self_read = self.attn1(inner, inner, None, control, here)
        x = x + y
        kv = text["context"] if text["kv"] is None else text["kv"][there.name]
        y, cross_read = self.attn2(self.norm2(x), kv, text["bias"], control, there)
        x = x + y
        reads = {here.name: self_read, there.name: cross_read}
        taps = {name: read for name, read in reads.items() if read is not None}
        return x + self.ff(self.norm3(x)), taps


class Transformer2D(nn.Module):
    """x + proj_out(blocks(proj_in(norm x))): attention over the h*w cells of a feature map.

    `linear` only says how proj_in and proj_out are stored: [C, C], or [1, 1, C, C].
    Source: diffusers models/transformers/transformer_2d.py, attention.py BasicTransformerBlock.
    """

    features: int
    heads: int
    depth: int
    groups: int
    linear: bool
    where: Place
    compute: Compute = Compute()

    def setup(self):
        self.norm = GroupNorm(self.groups, eps=1e-6, compute=self.compute)
        self.proj_in = self._projection()
        self.transformer_blocks = [
            TransformerBlock(self.features, self.heads, i, self.where, self.compute)
            for i in range(self.depth)
        ]
        self.proj_out = self._projection()

    def _projection(self):
        if self.linear:
            return Linear(self.features, self.compute)
        return Conv(self.features, size=1, padding=0, compute=self.compute)

    def keys_values(self, context: Tokens) -> dict[str, Any]:
        """{site name: (k, v)} of every cross attention inside."""
        pairs = {}
        for block in self.transformer_blocks:
            pairs |= block.keys_values(context)
        return pairs

    def __call__(self, x: Float[Array, "n h w c"], text: Any, control: Any) -> tuple:
        n, h, w, c = x.shape
        y = self.proj_in(self.norm(x)).reshape(n, h * w, c)
        taps = {}
        for block in self.transformer_blocks:
            y, reads = block(y, (h, w), text, control)
            taps |= reads
        return x + self.proj_out(y.reshape(n, h, w, c)), taps
