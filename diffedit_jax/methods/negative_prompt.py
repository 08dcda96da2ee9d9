"""Negative-prompt inversion: the source prompt in the place of the null prompt, at no cost."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core import skipped
from ..errors import UserError
from ..transforms import Proximal
from .generate import guidance_edit
from .inversion import (
    confined,
    descend,
    editing_table,
    invert,
    latents_of,
    part,
    passed,
    posterior_draws,
    reports,
    reports_apart,
    tell_reports,
    walked,
)
from .registry import method
from .run import Draws, guided, per_image, pictures

_KINDS = (None, "l0", "l1")
_OF_A_REPORT = ("report", "prompt", "source", "mask")


def _evaluations(p):
    rows = p["steps"] - skipped(p["steps"], p["strength"])
    return rows * (3 if reports_apart(*(p[k] for k in _OF_A_REPORT)) else 2), 2


@method(
    paper="Miyake et al. 2023, Negative-prompt Inversion (2305.16807); proximal guidance: Han et "
    "al. 2024, ProxEdit (2306.05414)",
    start="picture",
    channels=(4,),
    evaluations=_evaluations,
    role="start",
    per_image=(
        "guidance",
        "strength",
        "towards_null",
        "quantile",
        "pull",
        "pull_below",
    ),
)
def negative_prompt(
    model,
    images,
    *,
    source: list[str],
    prompt: list[str] | None = None,
    mask=None,
    strength: float = 1.0,
    steps: int = 50,
    guidance: float = 7.5,
    towards_null: float = 0.0,
    proximal: str | None = None,
    quantile: float = 0.7,
    pull: float = 0.0,
    pull_below: float = 400.0,
    dilate: int = 1,
    spacing: str | None = None,
    posterior: str = "mean",
    report: bool = False,
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Encodes a picture by DDIM and guides away from its own prompt on the way back.

    eps = eps(source) + w (eps(prompt) - eps(source)): where both prompts agree, guidance has no
    effect and the way back is as good as DDIM inversion without guidance.

    Args:
      source: what the picture shows, one text per picture.
      prompt: what it shall show; the source prompt if not given (reconstruction).
      mask: [b, h, w] in [0, 1], 1 where the picture may change; elsewhere its own path is kept.
      strength: share of the steps that are walked, both ways, in (0, 1].
      steps: length of the full grid.
      guidance: w of the way back.
      towards_null: 0 takes the source prompt's embedding, 1 the empty prompt's, between them along
        the great circle.
      proximal: "l0" or "l1" keeps only the largest differences of the two predictions, hard or
        soft; all of them if not given.
      quantile: share of the differences that proximal guidance drops, in [0, 1]; 1 drops all.
      pull: how far proximal guidance moves what it dropped towards the picture, per step, 0 to 1;
        the published code has 0.1 where it is asked for.
      pull_below: training time below which it does so.
      dilate: cells by which the edited region grows for that.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      posterior: "mean" takes the mean of the picture's latent, "sample" draws it.
      report: measures the reconstruction under the source prompt, without mask (latent error,
        PSNR), and puts it into the notices; costs one more way back, unless that is the edit.
      seed: of the draws, where there are any; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the posterior draw, or a mapping of draws, in place of the seed.

    Source: section 3.3 of the paper; cure-lab/PnPInversion, NegativePromptInversion and
    proximal_guidance_forward.
    """
    count = len(images)
    draws = Draws(count, seed, index, posterior_draws(noise))
    table = editing_table(model, steps=steps, count=count, strength=strength, spacing=spacing)
    again = reports_apart(report, prompt, source, mask)
    rows, total = walked(table), (3 if again else 2) * walked(table)
    z0 = latents_of(model, images, posterior, draws)
    up = invert(model, z0, model.condition(source), table=table, watch=part(watch, 0, total))
    knobs = dict(guidance=guidance, quantile=quantile, rate=pull, until=pull_below)
    edit = proximal_guidance(proximal, z0, count, dilate, knobs)
    masked = confined(edit, mask, passed(up.recorded, z0), model.factor)

    def back(text, phase, edit):
        cond = source_as_null(guided(model, text, source), model, towards_null)
        return descend(model, edit, table, up.x, cond, watch=part(watch, phase * rows, total)).x

    z = back(prompt or source, 1, masked)
    edited = pictures(model, z)
    if report:
        known = (back(source, 2, edit), None) if again else (z, edited)
        tell_reports(reports(model, images, z0, *known))
    return edited


def source_as_null(cond, model, towards_null=0.0):
    """Branches (source, prompt) -> the first one turned towards the empty prompt's embedding.

    slerp(f; a, b) = (sin((1 - f) w) a + sin(f w) b) / sin w, w the angle between the embeddings.
    """
    count = cond.text.shape[0]
    share = per_image(towards_null, count, "towards_null")
    null = model.condition([""] * count).text
    turned = _slerp(share[:, None, None], cond.text[:, 0], null)
    return cond.replace(text=cond.text.at[:, 0].set(turned))


def _slerp(share, a: Float[Array, "b tokens width"], b: Float[Array, "b tokens width"]):
    def unit(v):
        size = jnp.linalg.norm(v.reshape(len(v), -1), axis=1)[:, None, None]
        return v / jnp.maximum(size, 1e-12)  # SDXL's empty prompt is zero

    cosine = jnp.sum(unit(a) * unit(b), axis=(1, 2), keepdims=True)
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    sine = jnp.sin(angle)
    straight = sine < 1e-6  # the same direction: nothing to turn
    whole = jnp.where(straight, 1.0, sine)
    first = jnp.where(straight, 1 - share, jnp.sin((1 - share) * angle) / whole)
    return first * a + jnp.where(straight, share, jnp.sin(share * angle) / whole) * b


def proximal_guidance(kind, z0, count: int, dilate: int, knobs: dict, *, from_null: bool = False):
    """Classifier-free guidance, or its proximal form ("l0", "l1"); leaves [count, ...].

    Args:
      from_null: the proximal form has branches (null, source, prompt), see `with_source`; else
        (source, prompt).
      z0: the pictures' latents.
      knobs: guidance, quantile, rate, until: one number, or one per picture.
    """
    if kind not in _KINDS:
        raise UserError(f"proximal must be 'l0', 'l1' or nothing, not {kind!r}")
    own = {name: per_image(value, count, name) for name, value in knobs.items()}
    if kind is None:
        return guidance_edit(own["guidance"], 0.0, count)
    if not np.all((own["quantile"] >= 0) & (own["quantile"] <= 1)):
        raise UserError(f"quantile must be in [0, 1], not {knobs['quantile']}")
    if dilate < 0:
        raise UserError(f"dilate must be 0 cells or more, not {dilate}")
    s = own.pop("guidance")
    base = [1 - s, s, 0 * s] if from_null else [jnp.ones_like(s), 0 * s]
    return Proximal(scale=s, base=jnp.stack(base, axis=-1), source=z0, kind=kind,
                    dilate=int(dilate), **own)  # fmt: skip


def with_source(cond, source):
    """Branches (null, prompt), leaves [b, 2, *rows, ...] -> (null, source, prompt).

    Args:
      source: the source prompt's condition, leaves that broadcast to [b, *rows, ...].
    """

    def between(a, source):
        return jnp.stack([a[:, 0], jnp.broadcast_to(source, a[:, 1].shape), a[:, 1]], axis=1)

    return jax.tree.map(between, cond, source)
