"""The vision transformer of DINO, whose keys say how a picture is laid out.

Source: Caron et al. 2021; facebookresearch/dino vision_transformer.py. ViT-S is 384 wide with 6
heads, ViT-B 768 with 12; patches of 8 or 16 pixels; 12 blocks.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffedit_jax.models.attention import attention
from diffedit_jax.models.layers import Compute, Conv, LayerNorm, Linear
from diffedit_jax.models.resize import resize

Tokens = Float[Array, "n tokens d"]
EPS = 1e-6
SIZES = {"dino_vits16": (384, 6, 16), "dino_vits8": (384, 6, 8),
         "dino_vitb16": (768, 12, 16), "dino_vitb8": (768, 12, 8)}  # fmt: skip


class ViTAttention(nn.Module):
    """Self attention from one packed projection, [query | key | value] of all heads."""

    features: int
    heads: int
    compute: Compute = Compute()

    def setup(self):
        self.qkv = Linear(3 * self.features, self.compute)
        self.proj = Linear(self.features, self.compute)

    def __call__(self, x: Tokens) -> tuple[Tokens, Tokens]:
        """(what is added to x, the packed projection)."""
        packed = self.qkv(x)
        width = self.features // self.heads
        q, k, v = jnp.moveaxis(packed.reshape(*x.shape[:2], 3, self.heads, width), 2, 0)
        y, _ = attention(q, k, v, scale=width**-0.5, operands=self.compute.operand_dtype,
                         kernel=self.compute.attention)  # fmt: skip
        return self.proj(y.reshape(x.shape)), packed


class ViTMLP(nn.Module):
    """fc2(gelu(fc1 x)), the exact gelu."""

    features: int
    hidden: int
    compute: Compute = Compute()

    def setup(self):
        self.fc1 = Linear(self.hidden, self.compute)
        self.fc2 = Linear(self.features, self.compute)

    def __call__(self, x: Tokens) -> Tokens:
        y = jax.nn.gelu(self.fc1(x).astype(jnp.float32), approximate=False)
        return self.fc2(y.astype(self.compute.dtype))


class ViTBlock(nn.Module):
    """x += attention(norm1 x); x += mlp(norm2 x)."""

    features: int
    heads: int
    compute: Compute = Compute()

    def setup(self):
        self.norm1 = LayerNorm(EPS, self.compute)
        self.attn = ViTAttention(self.features, self.heads, self.compute)
        self.norm2 = LayerNorm(EPS, self.compute)
        self.mlp = ViTMLP(self.features, 4 * self.features, self.compute)

    def __call__(self, x: Tokens) -> tuple[Tokens, Tokens]:
        y, packed = self.attn(self.norm1(x))
        x = x + y
        return x + self.mlp(self.norm2(x)), packed


class PatchEmbed(nn.Module):
    """One vector per patch of the picture: [n, h, w, 3] -> [n, h / patch, w / patch, d]."""

    features: int
    patch: int
    compute: Compute = Compute()

    def setup(self):
        self.proj = Conv(self.features, self.patch, self.patch, 0, self.compute)

    def __call__(self, pixels: Float[Array, "n h w 3"]) -> Float[Array, "n h2 w2 d"]:
        return self.proj(pixels)


class ViT(nn.Module):
    """(pixels [n, h, w, 3], ImageNet-normalised) -> (CLS after the last norm [n, d], features).

    Features: "blocks", the output of each block [n, 1 + patches, d], class token first, before the
    last norm; "tokens", what the first block sees; "qkv" and "keys" of the last block, [n,
    tokens, 3 d] and [n, tokens, d], heads side by side, the class token's row included. Heights
    and widths beyond a multiple of `patch` are cut off.

    Attributes:
      grid: side of the square of patches that positions were learnt for (28 for ViT-B/8 at 224).
    """

    features: int = 768
    heads: int = 12
    depth: int = 12
    patch: int = 8
    grid: int = 28
    compute: Compute = Compute()

    def setup(self):
        init = nn.initializers.normal(0.02)
        self.cls_token = self.param("cls_token", init, (1, 1, self.features), jnp.float32)
        shape = (1, self.grid**2 + 1, self.features)
        self.pos_embed = self.param("pos_embed", init, shape, jnp.float32)
        self.patch_embed = PatchEmbed(self.features, self.patch, self.compute)
        self.blocks = [ViTBlock(self.features, self.heads, self.compute) for _ in range(self.depth)]
        self.norm = LayerNorm(EPS, self.compute)

    def __call__(self, pixels: Float[Array, "n h w 3"]) -> tuple[Float[Array, "n d"], dict]:
        patches = self.patch_embed(pixels)
        n, rows, columns, d = patches.shape
        first = jnp.broadcast_to(self.cls_token.astype(patches.dtype), (n, 1, d))
        x = jnp.concatenate([first, patches.reshape(n, rows * columns, d)], axis=1)
        x = (x + self.positions(rows, columns)).astype(self.compute.dtype)
        seen = {"tokens": x, "blocks": []}
        for block in self.blocks:
            x, packed = block(x)
            seen["blocks"].append(x)
        keys = packed[..., d : 2 * d]
        return self.norm(x)[:, 0], {**seen, "qkv": packed, "keys": keys}

    def positions(self, rows: int, columns: int) -> Float[Array, "1 tokens d"]:
        """Position vectors of a grid of rows x columns patches.

        The learnt grid is resampled bicubically (torch's kernel) in steps of grid / (rows + 0.1),
        as the official code does to keep a rounding error from losing a row.
        """
        if rows == columns == self.grid:
            return self.pos_embed
        square = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, self.features)
        step = (self.grid / (rows + 0.1), self.grid / (columns + 0.1))
        square = resize(square, (rows, columns), "bicubic", antialias=False, step=step)
        flat = square.reshape(1, rows * columns, self.features)
        return jnp.concatenate([self.pos_embed[:, :1], flat], axis=1)
