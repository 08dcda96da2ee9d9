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
      drop: share of the texts that becomes `empty` [tokens], for classifier-free guidance.
      skip: reads the state that many layers before the last (clip skip), after the final norm.

    Source: Ho and Salimans 2022, algorithm 1.
    """

    def condition(params, batch, key):
        ids = batch.get("ids")
        if ids is None:
            return Cond(text=batch["context"])
        if drop:
            ids = jnp.where(jax.random.bernoulli(key, drop, (len(ids), 1)), empty, ids)
        return Cond(text=read(text, params["text_encoder"], ids, skip))

    return condition


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


def instruct_condition(text: Any, *, drop: float, empty: Int[Any, "tokens"]) -> Callable:
    """(params, batch, key) -> Cond of an instruction and the picture to be edited.

    Batch: "ids" [n, tokens], "source" [n, h, w, c] latents of the pictures, not scaled; "r" [n],
    if it is there, stands for the uniform draws of `kept`. A dropped text is `empty`, a dropped
    picture is zeros.
    """

    def condition(params, batch, key):
        source = batch["source"]
        r = batch["r"] if "r" in batch else jax.random.uniform(key, (len(source),))
        words, picture = kept(r, drop)
        ids = jnp.where(words[:, None], batch["ids"], empty)
        channels = source * picture[:, None, None, None].astype(source.dtype)
        return Cond(text=read(text, params["text_encoder"], ids), channels=channels)

    return condition


def example_condition(encoder: Any, *, drop: float, together: int = 0) -> Callable:
    """(params, batch, key) -> Cond of an example picture and of the picture without its hole.

    Batch: "shown" [n, s, s, 3] examples prepared for CLIP, "masked" and "masked_deviation"
    [n, h, w, c] of the latent to be drawn, scaled, and "keep" [n, h, w, 1], 1 where the picture is
    shown; "dropped" [n] bool, if it is there, is not drawn. An example that is dropped is the
    learned vector. Channels: [masked latent | keep].

    Args:
      encoder: models.Exemplar; its parameters are params["exemplar"].
      drop: share of the examples that are dropped.
      together: so many rows share one draw; 0: the whole batch, as in the original, where a batch
        is what one device holds.

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
        noise = jax.random.normal(keys[1], batch["masked"].shape)
        hidden = batch["masked"] + batch["masked_deviation"] * noise
        return Cond(text=text, channels=jnp.concatenate([hidden, batch["keep"]], axis=-1))

    return condition


def drawn_together(key: Any, count: int, share: float, together: int) -> Bool[Array, "n"]:
    """`count` Bernoulli draws of which `together` neighbours agree; 0: all of them."""
    rows = together or count
    return jnp.repeat(jax.random.bernoulli(key, share, (-(-count // rows),)), rows)[:count]
