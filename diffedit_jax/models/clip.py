"""CLIP: the text tower (ViT-L/14, OpenCLIP ViT-H and bigG) and the image tower."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffedit_jax.models.attention import attention
from diffedit_jax.models.config import read_fields, refuse_unknown_values
from diffedit_jax.models.layers import Compute, Conv, LayerNorm, Linear

Tokens = Float[Array, "n tokens d"]
ACTIVATIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}
ALLOWED = {"hidden_act": tuple(ACTIVATIONS)}


class ClipAttention(nn.Module):
    """Multi-head self attention with biased projections."""

    features: int
    heads: int
    compute: Compute = Compute()

    def setup(self):
        self.q_proj = Linear(self.features, self.compute)
        self.k_proj = Linear(self.features, self.compute)
        self.v_proj = Linear(self.features, self.compute)
        self.out_proj = Linear(self.features, self.compute)

    def __call__(self, x: Tokens, bias: Any) -> Tokens:
        width = self.features // self.heads
        split = (*x.shape[:2], self.heads, width)
        q, k, v = (part(x).reshape(split) for part in (self.q_proj, self.k_proj, self.v_proj))
        y, _ = attention(
            q,
            k,
            v,
            scale=width**-0.5,
            bias=bias,
            operands=self.compute.operand_dtype,
            kernel=self.compute.attention,
        )
        return self.out_proj(y.reshape(x.shape))


class ClipMLP(nn.Module):
    """fc2(act(fc1 x))."""

    features: int
    hidden: int
    act: str
    compute: Compute = Compute()

    def setup(self):
        self.fc1 = Linear(self.hidden, self.compute)
        self.fc2 = Linear(self.features, self.compute)

    def __call__(self, x: Tokens) -> Tokens:
        y = ACTIVATIONS[self.act](self.fc1(x).astype(jnp.float32))
        return self.fc2(y.astype(self.compute.dtype))


class ClipLayer(nn.Module):
    """x += attention(layer_norm1 x); x += mlp(layer_norm2 x)."""

    features: int
    heads: int
    hidden: int
    act: str
    eps: float
    compute: Compute = Compute()

    def setup(self):
        self.layer_norm1 = LayerNorm(self.eps, self.compute)
        self.self_attn = ClipAttention(self.features, self.heads, self.compute)
        self.layer_norm2 = LayerNorm(self.eps, self.compute)
        self.mlp = ClipMLP(self.features, self.hidden, self.act, self.compute)

    def __call__(self, x: Tokens, bias: Any) -> Tokens:
        x = x + self.self_attn(self.layer_norm1(x), bias)
        return x + self.mlp(self.layer_norm2(x))


class ClipEncoder(nn.Module):
    """The stack of layers; returns every hidden state, the input first."""

    depth: int
    features: int
    heads: int
    hidden: int
    act: str
    eps: float
    compute: Compute = Compute()
    remat: bool = False

    def setup(self):
        layer = nn.remat(ClipLayer) if self.remat else ClipLayer
        sizes = (self.features, self.heads, self.hidden, self.act, self.eps, self.compute)
        self.layers = [layer(*sizes) for _ in range(self.depth)]

    def __call__(self, x: Tokens, bias: Any) -> tuple[Tokens, ...]:
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], bias))
        return tuple(states)


class TextEmbeddings(nn.Module):
    """Token vector + position vector."""

    vocabulary: int
    positions: int
    features: int
    compute: Compute = Compute()

    def setup(self):
        self.token_embedding = nn.Embed(self.vocabulary, self.features)
        self.position_embedding = nn.Embed(self.positions, self.features)

    def __call__(self, ids: Int[Array, "n tokens"], vectors: Tokens | None = None) -> Tokens:
        tokens = self.token_embedding(ids) if vectors is None else vectors
        x = tokens + self.position_embedding(jnp.arange(ids.shape[1]))
        return x.astype(self.compute.dtype)


class VisionEmbeddings(nn.Module):
    """[class vector, patches of the picture] + position vectors."""

    patch: int
    positions: int
    features: int
    compute: Compute = Compute()

    def setup(self):
        self.class_embedding = self.param(
            "class_embedding", nn.initializers.normal(0.02), (self.features,), jnp.float32
        )
        self.patch_embedding = Conv(
            self.features, self.patch, self.patch, 0, self.compute, use_bias=False
        )
        self.position_embedding = nn.Embed(self.positions, self.features)

    def __call__(self, pixels: Float[Array, "n h w 3"]) -> Tokens:
        patches = self.patch_embedding(pixels)
        n, h, w, d = patches.shape
        first = jnp.broadcast_to(self.class_embedding.astype(patches.dtype), (n, 1, d))
        x = jnp.concatenate([first, patches.reshape(n, h * w, d)], axis=1)
        return (x + self.position_embedding(jnp.arange(x.shape[1]))).astype(self.compute.dtype)


class CLIPText(nn.Module):
    """Token ids to contextual vectors: (ids [n, 77]) -> (last_hidden [n, 77, d], more).

    more: "hidden_states" (depth + 1 entries, before the final norm), "pooled" [n, d] (the final
    state at the end-of-text token) and, with a text projection, "projected" [n, p].
    Source: Radford et al. 2021; transformers models/clip/modeling_clip.py.
    """

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407
    with_projection: bool = False
    dtype: Any = jnp.float32
    operands: Any = None
    attention: str = "auto"
    remat: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "CLIPText":
        """The tower of a transformers CLIPTextConfig or CLIPConfig (its `text_config`).

        A projection is expected for CLIPTextModelWithProjection and CLIPModel; the option
        `with_projection` overrides.
        """
        config = _tower(config, "text_config")
        refuse_unknown_values("text encoder", config, ALLOWED)
        return cls(**(read_fields(cls, config) | options))

    def setup(self):
        compute = Compute(self.dtype, self.operands, self.attention)
        self.embeddings = TextEmbeddings(
            self.vocab_size, self.max_position_embeddings, self.hidden_size, compute
        )
        self.encoder = _encoder(self, compute)
        self.final_layer_norm = LayerNorm(self.layer_norm_eps, compute)
        if self.with_projection:
            self.text_projection = Linear(self.projection_dim, compute, use_bias=False)

    def __call__(
        self, ids: Int[Array, "n tokens"], vectors: Tokens | None = None
    ) -> tuple[Tokens, dict]:
        """`vectors` [n, tokens, d] stand in for the token embedding (learned words)."""
        tokens = ids.shape[1]
        hidden_later = jnp.triu(jnp.full((tokens, tokens), jnp.finfo(jnp.float32).min), 1)
        states = self.encoder(self.embeddings(ids, vectors), hidden_later[None, None])
        last = self.final_layer_norm(states[-1])
        pooled = last[jnp.arange(ids.shape[0]), self._end_of_text(ids)]
        more = {"hidden_states": states, "pooled": pooled}
        if self.with_projection:
            more["projected"] = self.text_projection(pooled)
        return last, more

    def _end_of_text(self, ids):
        """First eos; configs with the legacy eos id 2 mean the largest id (the true eos)."""
        return jnp.argmax(ids if self.eos_token_id == 2 else ids == self.eos_token_id, axis=-1)

    def normalise(self, hidden: Tokens) -> Tokens:
        """The final norm of an earlier hidden state (clip skip)."""
        return self.final_layer_norm(hidden)


class CLIPVision(nn.Module):
    """Normalised pixels to tokens: (pixels [n, 224, 224, 3]) -> (tokens [n, 257, d], more).

    Tokens are not normalised; more: "pooled" [n, d] (post_layernorm of the class token),
    "hidden_states" and, with a projection, "projected" [n, p].
    Source: Radford et al. 2021; transformers models/clip/modeling_clip.py.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    with_projection: bool = False
    dtype: Any = jnp.float32
    operands: Any = None
    attention: str = "auto"
    remat: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "CLIPVision":
        """The tower of a transformers CLIPVisionConfig or CLIPConfig (its `vision_config`)."""
        config = _tower(config, "vision_config")
        refuse_unknown_values("image encoder", config, ALLOWED)
        return cls(**(read_fields(cls, config) | options))

    def setup(self):
        compute = Compute(self.dtype, self.operands, self.attention)
        positions = (self.image_size // self.patch_size) ** 2 + 1
        self.embeddings = VisionEmbeddings(self.patch_size, positions, self.hidden_size, compute)
        self.pre_layrnorm = LayerNorm(self.layer_norm_eps, compute)
        self.encoder = _encoder(self, compute)
        self.post_layernorm = LayerNorm(self.layer_norm_eps, compute)
        if self.with_projection:
            self.visual_projection = Linear(self.projection_dim, compute, use_bias=False)

    def __call__(self, pixels: Float[Array, "n h w 3"]) -> tuple[Tokens, dict]:
        states = self.encoder(self.pre_layrnorm(self.embeddings(pixels)), None)
        pooled = self.post_layernorm(states[-1][:, 0])
        more = {"hidden_states": states, "pooled": pooled}
        if self.with_projection:
            more["projected"] = self.visual_projection(pooled)
        return states[-1], more

    def projected(self, tokens: Tokens) -> Float[Array, "n tokens p"]:
        """Tokens of the last state where pictures and texts meet: visual_projection(norm x)."""
        return self.visual_projection(self.post_layernorm(tokens))


def _encoder(tower: CLIPText | CLIPVision, compute: Compute) -> ClipEncoder:
    return ClipEncoder(
        tower.num_hidden_layers,
        tower.hidden_size,
        tower.num_attention_heads,
        tower.intermediate_size,
        tower.hidden_act,
        tower.layer_norm_eps,
        compute,
        tower.remat,
    )


def _tower(config: Mapping[str, Any], part: str) -> dict[str, Any]:
    """One tower's entries, told whether the tower ends in a projection."""
    kinds = config.get("architectures") or []
    projected = any(kind == "CLIPModel" or "WithProjection" in kind for kind in kinds)
    if part in config:
        own = {"projection_dim": config.get("projection_dim", 512), "with_projection": True}
        return {**config[part], **own}
    return {"with_projection": projected, **config}
