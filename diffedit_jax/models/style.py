"""InST's inversion module: a painting's image tokens become the vector of one word."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int

from diffedit_jax.models.attention import attention
from diffedit_jax.models.layers import Compute, Linear

Tokens = Float[Array, "n tokens d"]


class StyleAttention(nn.Module):
    """dropout(to_out(attention(to_q x, to_k y, to_v y))); only to_out has a bias."""

    features: int
    inner: int
    heads: int
    dropout: float
    compute: Compute = Compute()

    def setup(self):
        self.to_q = Linear(self.inner, self.compute, use_bias=False)
        self.to_k = Linear(self.inner, self.compute, use_bias=False)
        self.to_v = Linear(self.inner, self.compute, use_bias=False)
        self.to_out_0 = Linear(self.features, self.compute)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Tokens, y: Tokens, train: bool) -> Tokens:
        width = self.inner // self.heads
        split = (y.shape[0], -1, self.heads, width)
        q, k, v = (f(a).reshape(split) for f, a in ((self.to_q, x), (self.to_k, y), (self.to_v, y)))
        found, _ = attention(q, k, v, scale=width**-0.5, operands=self.compute.operand_dtype,
                             kernel=self.compute.attention)  # fmt: skip
        joined = found.reshape(*x.shape[:2], self.inner)
        return self.drop(self.to_out_0(joined), deterministic=not train)


class StyleWord(nn.Module):
    """net(attn2(attn1(e, e), e)) of image tokens e [n, tokens, features] -> [n, tokens, width].

    The word is the first of the result, that of the pooled token. Of a single token both softmaxes
    are 1, and the word is W_net (W_out W_v e + b_out) + b_net whatever attn1, to_q and to_k hold,
    which then have no gradient; of the pooled token and the patches all of them take part.

    Attributes:
      features: channels of an image token, 768 for CLIP ViT-L/14.
      width: channels of a word of the text encoder, 768 for Stable Diffusion 1.
      inner: channels of all heads together.
      dropout: behind each attention and once more before the last layer; only while `train`, which
        needs the random stream "dropout".

    Source: Zhang et al. 2023 (2211.13203), attention-based inversion; zyxElsa/InST
    ldm/modules/embedding_manager.py (Attentions), ldm/modules/attention.py (CrossAttention).
    """

    features: int = 768
    width: int = 768
    inner: int = 512
    heads: int = 8
    dropout: float = 0.05
    compute: Compute = Compute()

    def setup(self):
        sizes = (self.features, self.inner, self.heads, self.dropout, self.compute)
        self.attn1, self.attn2 = StyleAttention(*sizes), StyleAttention(*sizes)
        self.drop = nn.Dropout(self.dropout)
        self.net_1 = Linear(self.width, self.compute)

    def __call__(self, tokens: Tokens, train: bool = False) -> Float[Array, "n tokens width"]:
        x = self.attn2(self.attn1(tokens, tokens, train), tokens, train)
        return self.net_1(self.drop(x, deterministic=not train))


def fresh(module: StyleWord, key: Any) -> dict:
    """Parameters before training: weights and biases uniform in +-1 / sqrt(inputs).

    As torch begins every linear layer. An embedding of length 1 moves the first word far less than
    the biases do, so they are no detail here.
    Source: torch.nn.Linear.reset_parameters.
    """
    example = jnp.zeros((1, 1, module.features))
    flat = flatten_dict(module.init(key, example)["params"])
    for number, path in enumerate(sorted(p for p in flat if p[-1] == "bias")):
        reach = 1 / math.sqrt(flat[(*path[:-1], "kernel")].shape[0])
        own = jax.random.fold_in(key, number)
        flat[path] = jax.random.uniform(own, flat[path].shape, minval=-reach, maxval=reach)
    return unflatten_dict(flat)


def placed(
    vectors: Tokens,
    ids: Int[Array, "n tokens"],
    placeholder: Int[Array, "#n 1"] | int,
    words: Float[Array, "n d"],
) -> Tokens:
    """Token vectors (before their positions) with words[i] wherever row i says the placeholder.

    Source: zyxElsa/InST embedding_manager.py, EmbeddingManager.forward with one vector per token.
    """
    here = (ids == placeholder)[..., None]
    return jnp.where(here, words[:, None].astype(vectors.dtype), vectors)
