"""What the network is told during training: texts, pictures, and what is left out at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..core import Cond


def text_condition(text: Any, *, drop: float = 0.0, empty: Any = None, skip: int = 0) -> Callable:
    """(params, batch, key) -> Cond of the batch's "ids" [n, tokens], read by params' text encoder.

    A batch with "context" [n, tokens, d] brings its text states itself, and the encoder is not run.

    Args:
      text: the text encoder's module.
      drop: share of the texts that becomes `empty`, for classifier-free guidance.
      empty: [tokens], or its state [tokens, d] where batches bring states.
      skip: reads the state that many layers before the last (clip skip), after the final norm.

    Source: Ho and Salimans 2022, algorithm 1.
    """

    def condition(params, batch, key):
        given = batch["context"] if "context" in batch else batch["ids"]
        if drop:
            given = _where(~jax.random.bernoulli(key, drop, (len(given),)), given, empty)
        return Cond(text=_told(text, params, given, skip))

    return condition


def _where(words: Bool[Array, "n"], given: Array, empty: Any) -> Array:
    """The given texts (ids or states) where words are kept, else the empty one."""
    return jnp.where(words.reshape(-1, *(1,) * (given.ndim - 1)), given, empty)


def _told(text, params, given, skip=0):
    """Text states of ids [n, tokens]; states [n, tokens, d] are that already."""
    return given if given.ndim == 3 else read(text, params["text_encoder"], given, skip)


def read(text: Any, params: Any, ids: Int[Array, "n tokens"], skip: int = 0) -> Any:
    """The text states [n, tokens, d] that the UNet attends to; differentiable in params."""
    last, more = text.apply({"params": params}, ids)
    if not skip:
        return last
    return text.apply({"params": params}, more["hidden_states"][-1 - skip], method="normalise")


def kept(r: Float[Array, "n"], drop: float) -> tuple[Bool[Array, "n"], Bool[Array, "n"]]:
    """(text is kept, picture is kept) for uniform draws r: one draw decides both.

    The text is dropped if r < 2 drop, the picture if drop <= r < 3 drop: each alone and both
    together have the share `drop`.
    Source: Brooks et al. 2023, section 3.2.1; instruct-pix2pix ddpm_edit.py get_input.
    """
    return r >= 2 * drop, (r < drop) | (r >= 3 * drop)


def instruct_condition(
    text: Any, *, drop: float, empty: Any, encode: Callable | None = None
) -> Callable:
    """(params, batch, key) -> Cond of an instruction and the picture to be edited.

    Batch: "ids" [n, tokens] or "context" [n, tokens, d], "source" [n, h, w, c] latents of the
    pictures, not scaled, or with `encode` "source_image" [n, H, W, 3] in 0 .. 255; "r" [n], if it
    is there, stands for the uniform draws of `kept`. A dropped text is `empty`, as in
    `text_condition`, a dropped picture is zeros.
    """

    def condition(params, batch, key):
        source = encode(params, batch["source_image"])[0] if encode else batch["source"]
        r = batch["r"] if "r" in batch else jax.random.uniform(key, (len(source),))
        words, picture = kept(r, drop)
        given = _where(words, batch["context"] if "context" in batch else batch["ids"], empty)
        channels = source * picture[:, None, None, None].astype(source.dtype)
        return Cond(text=_told(text, params, given), channels=channels)

    return condition


def example_condition(
    encoder: Any, *, drop: float, together: int = 0, encode: Callable | None = None
) -> Callable:
    """(params, batch, key) -> Cond of an example picture and of the picture without its hole.

    Batch: "shown" [n, s, s, 3] examples prepared for CLIP, "masked" and "masked_deviation"
    [n, h, w, c] of the latent to be drawn, scaled, and "keep" [n, h, w, 1], 1 where the picture is
    shown; "dropped" [n] bool, if it is there, is not drawn. An example that is dropped is the
    learned vector. Channels: [masked latent | keep]. With `encode`, "masked_image" [n, H, W, 3] in
    0 .. 255 stands for "masked" and "masked_deviation".

    Args:
      encoder: models.Exemplar; its parameters are params["exemplar"].
      drop: share of the examples that are dropped.
      together: so many rows share one draw; 0: the whole batch, as in the original, where a batch
        is what one device holds.
      encode: of `encoding.encoder_of`.

    Source: Yang et al. 2022, section 3.4; Fantasy-Studio/Paint-by-Example
    ldm/models/diffusion/ddpm.py get_input, u_cond_percent.
    """

    def condition(params, batch, key):
        keys, shown = jax.random.split(key), batch["shown"]
        told = encoder.apply({"params": params["exemplar"]}, shown)
        dropped = batch.get("dropped")
        if dropped is None:
            dropped = drawn_together(keys[0], len(shown), drop, together)
        null = params["exemplar"]["uncond_vector"].astype(told.dtype)
        text = jnp.where(dropped[:, None, None], null, told)
        if encode:
            mean, deviation = encode(params, batch["masked_image"])
        else:
            mean, deviation = batch["masked"], batch["masked_deviation"]
        hidden = mean + deviation * jax.random.normal(keys[1], mean.shape)
        return Cond(text=text, channels=jnp.concatenate([hidden, batch["keep"]], axis=-1))

    return condition


def drawn_together(key: Any, count: int, share: float, together: int) -> Bool[Array, "n"]:
    """`count` Bernoulli draws of which `together` neighbours agree; 0: all of them."""
    rows = together or count
    return jnp.repeat(jax.random.bernoulli(key, share, (-(-count // rows),)), rows)[:count]
