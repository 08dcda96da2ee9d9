"""Paint by Example's condition: a picture as one vector, by CLIP's image tower and a mapper."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffedit_jax.models.attention import attention
from diffedit_jax.models.clip import CLIPVision
from diffedit_jax.models.layers import Compute, LayerNorm, Linear

Tokens = Float[Array, "n tokens d"]


class SelfAttention(nn.Module):
    """to_out(attention(to_q x, to_k x, to_v x)) with one head; biases everywhere."""

    features: int
    compute: Compute = Compute()

    def setup(self):
        self.to_q = Linear(self.features, self.compute)
        self.to_k = Linear(self.features, self.compute)
        self.to_v = Linear(self.features, self.compute)
        self.to_out_0 = Linear(self.features, self.compute)

    def __call__(self, x: Tokens) -> Tokens:
        q, k, v = (part(x)[:, :, None] for part in (self.to_q, self.to_k, self.to_v))
        y, _ = attention(
            q,
            k,
            v,
            scale=self.features**-0.5,
            operands=self.compute.operand_dtype,
            kernel=self.compute.attention,
        )
        return self.to_out_0(y.reshape(x.shape))


class Projection(nn.Module):
    """gelu(x W + b), exact (erf)."""

    features: int
    compute: Compute = Compute()

    def setup(self):
        self.proj = Linear(self.features, self.compute)

    def __call__(self, x: Tokens) -> Float[Array, "n tokens features"]:
        y = jax.nn.gelu(self.proj(x).astype(jnp.float32), approximate=False)
        return y.astype(self.compute.dtype)


class FeedForward(nn.Module):
    """C -> 4C -> C."""

    features: int
    compute: Compute = Compute()

    def setup(self):
        self.net_0 = Projection(4 * self.features, self.compute)
        self.net_2 = Linear(self.features, self.compute)

    def __call__(self, x: Tokens) -> Tokens:
        return self.net_2(self.net_0(x))


class MapperBlock(nn.Module):
    """x += attn1(norm1 x); x += ff(norm3 x)."""

    features: int
    compute: Compute = Compute()

    def setup(self):
        self.norm1 = LayerNorm(compute=self.compute)
        self.attn1 = SelfAttention(self.features, self.compute)
        self.norm3 = LayerNorm(compute=self.compute)
        self.ff = FeedForward(self.features, self.compute)

    def __call__(self, x: Tokens) -> Tokens:
        x = x + self.attn1(self.norm1(x))
        return x + self.ff(self.norm3(x))


class Mapper(nn.Module):
    """The stack of blocks."""

    features: int
    depth: int
    compute: Compute = Compute()

    def setup(self):
        self.blocks = [MapperBlock(self.features, self.compute) for _ in range(self.depth)]

    def __call__(self, x: Tokens) -> Tokens:
        for block in self.blocks:
            x = block(x)
        return x


class Exemplar(nn.Module):
    """Normalised pixels to the one token that the UNet attends to: [n, h, w, 3] -> [n, 1, p].

    proj_out(final_layer_norm(mapper(post_layernorm(class token)))), with (depth of the tower + 1)
    // 5 blocks in the mapper; `uncond_vector` [1, 1, p] stands for "no example".
    Source: Yang et al. 2022, section 3.2; diffusers' PaintByExampleImageEncoder.
    """

    model: CLIPVision
    projection_dim: int = 768

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "Exemplar":
        """The encoder of a transformers CLIPVisionConfig; `options` are CLIPVision's."""
        tower = CLIPVision.from_config({**config, "with_projection": False}, **options)
        return cls(tower, int(config.get("projection_dim") or 768))

    @property
    def image_size(self) -> int:
        """Pixels along the side of the pictures that it takes."""
        return self.model.image_size

    def setup(self):
        compute = Compute(self.model.dtype, self.model.operands, self.model.attention)
        depth = (self.model.num_hidden_layers + 1) // 5
        self.mapper = Mapper(self.model.hidden_size, depth, compute)
        self.final_layer_norm = LayerNorm(compute=compute)
        self.proj_out = Linear(self.projection_dim, compute)
        self.uncond_vector = self.param(
            "uncond_vector", nn.initializers.normal(1.0), (1, 1, self.projection_dim), jnp.float32
        )

    def __call__(self, pixels: Float[Array, "n h w 3"]) -> Float[Array, "n 1 p"]:
        _, more = self.model(pixels)
        mapped = self.mapper(more["pooled"][:, None])
        return self.proj_out(self.final_layer_norm(mapped))
