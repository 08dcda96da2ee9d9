"""A bundle with attention that costs nothing: two layers, words as tokens, pictures as latents."""

import re
import zlib
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffedit_jax.core import Cond, Prediction, Schedule, Site

TOKENS, WIDTH, HEADS = 12, 4, 2


class Words:
    """One token per word, two for words of more than six letters; id 1 begins, 2 ends, 0 pads."""

    length = TOKENS

    def spans(self, text):
        ids, spans = [1], [(0, 0)]
        for match in re.finditer(r"\w+|[^\w\s]", text):
            start, end = match.span()
            cuts = [start, start + 3, end] if end - start > 6 else [start, end]
            for a, b in zip(cuts, cuts[1:], strict=False):
                ids.append(3 + zlib.crc32(text[a:b].lower().encode()) % 900)
                spans.append((a, b))
        return [*ids[: TOKENS - 1], 2], [*spans[: TOKENS - 1], (0, 0)]

    def token(self, word):
        return self.spans(word)[0][1]


class Looking(struct.PyTreeNode):
    """eps = tanh(x W + cross attention to the text + self attention), heads along the width."""

    weights: Any  # [3, 3]
    project: Any  # [3, heads, WIDTH] queries and keys of cells
    values: Any  # [WIDTH * heads, 3]
    kind: str = struct.field(pytree_node=False, default="epsilon")

    def __call__(self, x, step, cond, control=None):
        *rows, height, width, channels = x.shape
        cells = x.reshape(*rows, height * width, channels)
        q = jnp.einsum("...qc,chd->...hqd", cells, self.project)
        text = jnp.stack(jnp.split(cond.text, HEADS, axis=-1), axis=-3)
        taps, out = {}, cells @ self.weights
        for order, (kind, keys) in enumerate((("cross", text), ("self", q))):
            site = Site(kind, kind, "mid", order, height, width, HEADS)
            probs = jax.nn.softmax(2 * jnp.einsum("...hqd,...hkd->...hqk", q, keys), axis=-1)
            if control is not None and control.wants(site):
                probs, taps[kind] = control(probs, site)
            seen = jnp.moveaxis(jnp.einsum("...hqk,...hkd->...hqd", probs, keys), -3, -2)
            out = out + seen.reshape(*rows, height * width, -1) @ self.values
        output = jnp.tanh(out).reshape(x.shape)
        return Prediction.of("epsilon", output, x, step.alpha, step.sigma, taps=taps)


class Pixels:
    """Latents are the pictures themselves; a posterior has a deviation of 0.01."""

    def latent_shape(self, height, width):
        return height, width, 3

    def encode(self, images, noise=None):
        return images if noise is None else images + 0.01 * noise

    def decode(self, latents):
        return latents


class Toy(Pixels, struct.PyTreeNode):
    """What methods ask of a bundle."""

    denoiser: Looking
    table: Any  # [tokens, heads * WIDTH] embeddings
    schedule: Schedule = struct.field(pytree_node=False, default=Schedule())
    factor: int = struct.field(pytree_node=False, default=1)
    size: int = struct.field(pytree_node=False, default=6)
    in_channels: int = struct.field(pytree_node=False, default=4)
    tokenizers: tuple = struct.field(pytree_node=False, default=(Words(),))
    defaults = {}

    def condition(self, prompts, **sizes):
        ids = [Words().spans(p)[0] for p in prompts]
        ids = jnp.asarray([i + [0] * (TOKENS - len(i)) for i in ids])
        place = 0.3 * jnp.sin(jnp.arange(TOKENS)[:, None] * (1 + jnp.arange(HEADS * WIDTH)))
        return Cond(text=self.table[ids] + place)

    def learned_style(self, path):
        mean, deviation = jnp.asarray([0.3, 0.0, -0.3]), jnp.asarray([0.5, 1.0, 0.2])
        vector = jnp.linspace(-1, 1, HEADS * WIDTH)
        return SimpleNamespace(word="*", vector=vector, mean=mean, deviation=deviation)

    def styled(self, prompts, words, vectors):
        return Cond(text=self.condition(prompts).text + vectors[:, None])


def toy() -> Toy:
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    network = Looking(0.3 * draw(3, 3), draw(3, HEADS, WIDTH), 0.5 * draw(WIDTH * HEADS, 3))
    return Toy(network, draw(1000, HEADS * WIDTH))


def a_picture():
    """[1, 6, 6, 3] in [-1, 1], the exact image of a uint8 picture."""
    pixels = np.random.default_rng(1).integers(40, 216, (1, 6, 6, 3))
    return (pixels / 127.5 - 1).astype(np.float32)
