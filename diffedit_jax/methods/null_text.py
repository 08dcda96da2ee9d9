"""Null-text inversion: a null prompt per step, optimised until guidance keeps to the path."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from ..core import Prediction, Step, chain, counted, image_axes, row, skipped
from ..errors import UserError
from ..notices import tell
from ..solvers.moves import moved
from ..transforms import NullTexts
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
    tell_reports,
    walked,
)
from .negative_prompt import proximal_guidance, with_source
from .registry import method
from .run import Draws, guided, per_image, pictures, walked_rows

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # torch's Adam


def _evaluations(p):
    rows = p["steps"] - skipped(p["steps"], p["strength"])
    return rows * (4 + p["inner"]), 3 if p["proximal"] else 2


@method(
    paper="Mokady et al. 2023, Null-text Inversion for Editing Real Images using Guided Diffusion "
    "Models (2211.09794); proximal guidance: Han et al. 2024, ProxEdit (2306.05414)",
    start="picture",
    channels=(4,),
    evaluations=_evaluations,
    role="start",
    per_image=(
        "guidance",
        "strength",
        "tolerance",
        "rate",
        "quantile",
        "pull",
        "pull_below",
    ),
)
def null_text(
    model,
    images,
    *,
    source: list[str],
    prompt: list[str] | None = None,
    mask=None,
    strength: float = 1.0,
    steps: int = 50,
    guidance: float = 7.5,
    inner: int = 10,
    tolerance: float = 1e-5,
    rate: float = 1e-2,
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
    """Encodes a picture by DDIM and fits a null prompt per step, so that guidance comes back to it.

    1. pivots z*: DDIM inversion under the source prompt, without guidance.
    2. from z*_N, at each step: minimise mean |z*_next - step(z, eps_u + w (eps_c - eps_u))|^2 over
       the null embedding u, from the last step's u; then step with it.
    3. sample from z*_N with the prompt and these null embeddings.

    Proximal guidance in 3. is eps_u + w (eps_s - eps_u) + w prox(eps_p - eps_s), s the source
    prompt and p the prompt: what is dropped is guided as in 2. and so comes back. The network is
    asked for three texts instead of two.

    Args:
      source: what the picture shows, one text per picture.
      prompt: what it shall show; the source prompt if not given (reconstruction).
      mask: [b, h, w] in [0, 1], 1 where the picture may change; elsewhere its own path is kept.
      strength: share of the steps that are walked, both ways, in (0, 1].
      steps: length of the full grid.
      guidance: w, of the optimisation and of the way back.
      inner: updates per step at most.
      tolerance: a step is done when its loss, before an update, is below tolerance + 2e-5 i.
      rate: Adam's rate at the noisiest step; it falls to rate (1 - i / 100), at least a tenth.
      proximal: "l0" or "l1" keeps only the largest differences of the prompts' predictions, hard or
        soft; all of them if not given.
      quantile: share of the differences that proximal guidance drops, in [0, 1]; 1 drops all.
      pull: how far proximal guidance moves what it dropped towards the picture, per step, 0 to 1.
      pull_below: training time below which it does so.
      dilate: cells by which the edited region grows for that.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      posterior: "mean" takes the mean of the picture's latent, "sample" draws it.
      report: measures the reconstruction (latent error, PSNR) and puts it into the notices.
      seed: of the draws, where there are any; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the posterior draw, or a mapping of draws, in place of the seed.

    Source: section 3 of the paper; cure-lab/PnPInversion, models/p2p/inversion.py NullInversion.
    Its null-text-inversion+proximal-guidance takes prox of eps_p - eps_u, so that what is dropped
    loses its guidance and leaves the fitted path; here, as with negative_prompt, it returns.
    """
    count = len(images)
    _check(model, inner, tolerance, rate)
    draws = Draws(count, seed, index, posterior_draws(noise))
    table = editing_table(model, steps=steps, count=count, strength=strength, spacing=spacing)
    rows, total = walked(table), 3 * walked(table)
    z0 = latents_of(model, images, posterior, draws)
    knobs = dict(guidance=guidance, quantile=quantile, rate=pull, until=pull_below)
    guide = proximal_guidance(proximal, z0, count, dilate, knobs, from_null=True)
    up = invert(model, z0, model.condition(source), table=table, watch=part(watch, 0, total))
    told = guided(model, source, [""] * count)
    pivots = passed(up.recorded, z0)
    fitted = fit_null_texts(model, table, pivots, up.x, told, guidance,
                            inner=inner, tolerance=tolerance, rate=rate,
                            watch=part(watch, rows, total))  # fmt: skip
    edit = confined(chain(NullTexts(texts=fitted.texts), guide), mask, pivots, model.factor)
    cond = guided(model, prompt or source, [""] * count)
    if proximal is not None:
        cond = with_source(cond, jax.tree.map(lambda a: a[:, 1], told))
    down = descend(model, edit, table, up.x, cond, watch=part(watch, 2 * rows, total))
    if report:
        tell_reports(reports(model, images, z0, fitted.x))
    return pictures(model, down.x)


class Fitted(struct.PyTreeNode):
    """Null prompts that keep guidance on a path."""

    x: Any  # [b, h, w, c] where the guided path ends: the reconstruction
    texts: Any  # [b, steps, tokens, width] null prompt of each row of the sampling table
    loss: Any  # [b, steps, inner] before each update, NaN where none was needed
    updates: Any  # [b, steps] int32 how many were made


class Fit(struct.PyTreeNode):
    """The numbers of the optimisation, of one picture."""

    guidance: Any  # []
    inner: Any  # [] int32
    tolerance: Any  # []
    rate: Any  # []


def fit_null_texts(model, table: Step, pivots, x, cond, guidance, *, inner: int = 10,
                   tolerance: float = 1e-5, rate: float = 1e-2, watch=None) -> Fitted:  # fmt: skip
    """The null embeddings u_i that lead the guided sampler along the pivots.

    Args:
      table: of sampling, as for `invert`.
      pivots: [b, steps, h, w, c] the source's latent after each row (`inversion.passed`).
      x: [b, h, w, c] the noisy end.
      cond: leaves [b, 2, ...]: the null prompt to begin with, the source prompt.
      guidance: w, one number or one per picture.
    Example: `chain(NullTexts(texts=fitted.texts), guidance_edit(guidance, 0.0, b))` for sampling.
    """
    count, size = len(x), len(table.index)
    knobs = dict(guidance=guidance, tolerance=tolerance, rate=rate)
    knobs = {k: _per_image(v, count, k, x.dtype) for k, v in knobs.items()}
    fit = Fit(inner=jnp.full(count, inner, jnp.int32), **knobs)
    rows = counted(table if table.active is not None else table.replace(active=np.ones(size, bool)))
    begin = x, cond.text[:, 0]
    if watch is None:
        end, kept = _fit_all(model.denoiser, fit, rows, pivots, cond, begin, limit=_limit(inner))
    else:
        end, kept = _fit_watched(model, watch, fit, rows, pivots, cond, begin, _limit(inner))
    return Fitted(end[0], *kept)


def _per_image(value, count: int, name: str, dtype):
    """`per_image` in the latent's own precision."""
    per_image(value, count, name)  # refuses a wrong number of values
    return jnp.broadcast_to(jnp.asarray(value, dtype), (count,))


def _limit(inner: int) -> int:
    """Length of the record of losses: rounded up, so that few programs serve all counts."""
    return max(16, -(-inner // 16) * 16)


@functools.partial(jax.jit, static_argnames="limit")
def _fit_all(denoiser, fit, rows, pivots, cond, begin, *, limit: int):
    """All rows of all pictures in one program."""

    def one(fit, rows, pivots, cond, begin):
        def body(carry, row):
            return _fit_row(denoiser, fit, cond, limit, carry, *row)

        return jax.lax.scan(body, begin, (jax.tree.map(jnp.asarray, rows), pivots))

    return jax.vmap(one, in_axes=(0, image_axes(rows), 0, 0, 0))(fit, rows, pivots, cond, begin)


@functools.partial(jax.jit, static_argnames="limit")
def _fit_one(denoiser, fit, step, pivot, cond, begin, *, limit: int):
    """One row of all pictures, for a run that somebody watches."""

    def one(fit, step, pivot, cond, begin):
        return _fit_row(denoiser, fit, cond, limit, begin, step, pivot)

    return jax.vmap(one, in_axes=(0, image_axes(step), 0, 0, 0))(fit, step, pivot, cond, begin)


def _fit_watched(model, watch, fit, rows, pivots, cond, carry, limit):
    kept, done = [], 0
    busy = walked_rows(rows)
    for index in range(len(busy)):
        own = {k: getattr(rows, k)[..., index] for k in ("walked", "active")}  # [n] or [b, n]
        step = row(rows.replace(walked=None, active=None), index).replace(**own)
        carry, out = _fit_one(model.denoiser, fit, step, pivots[:, index], cond, carry, limit=limit)
        kept.append(out)
        if busy[index]:
            done += 1
            watch(done, int(busy.sum()), functools.partial(pictures, model, carry[0]))
    return carry, jax.tree.map(lambda *a: jnp.stack(a, axis=1), *kept)


def _fit_row(denoiser, fit: Fit, cond, limit: int, carry, step: Step, pivot):
    """Fits u at one row and steps with it; an idle row leaves everything as it is."""
    x, text = carry

    def busy(_):
        null, source = jax.tree.map(lambda a: a[0], cond), jax.tree.map(lambda a: a[1], cond)
        told = denoiser(x, step, source)

        def landed(text):
            said = denoiser(x, step, null.replace(text=text))
            return moved(_guided(said, told, fit.guidance), step.alpha_next, step.sigma_next)

        def loss(text):
            return jnp.mean((landed(text) - pivot) ** 2)

        found, losses, updates = _adam(loss, text, fit, step.walked, limit)
        return (landed(found), found), (found, losses, updates)

    def idle(_):
        return (x, text), (text, jnp.full(limit, jnp.nan), jnp.int32(0))

    return jax.lax.cond(step.active, busy, idle, None)


def _guided(null: Prediction, told: Prediction, scale) -> Prediction:
    """eps_u + w (eps_c - eps_u), and the same for x0."""
    x0, eps = null.x0 + scale * (told.x0 - null.x0), null.eps + scale * (told.eps - null.eps)
    return null.replace(x0=x0, eps=eps)


def _adam(loss, text: Float[Array, "tokens width"], fit: Fit, outer, limit: int):
    """(text, losses [limit], updates): at most fit.inner updates of Adam, begun afresh.

    The loss that stops is the one before the update that was just made, as in the official code.
    """
    rate = fit.rate * jnp.maximum(1 - outer / 100, 0.1)
    enough = fit.tolerance + outer * 2e-5
    graded = jax.value_and_grad(loss)

    def going(carry):
        return (carry[4] < fit.inner) & ~carry[5]

    def update(carry):
        text, mean, square, losses, count, _ = carry
        value, slope = graded(text)
        mean = _BETAS[0] * mean + (1 - _BETAS[0]) * slope
        square = _BETAS[1] * square + (1 - _BETAS[1]) * slope**2
        # 1 - beta^k by expm1: in float32 the difference itself would lose half its digits
        first, second = (-jnp.expm1((1 + count) * math.log(beta)) for beta in _BETAS)
        text = text - rate * (mean / first) / (jnp.sqrt(square / second) + _EPSILON)
        return text, mean, square, losses.at[count].set(value), count + 1, value < enough

    zero = jnp.zeros_like(text)
    begin = text, zero, zero, jnp.full(limit, jnp.nan), jnp.int32(0), jnp.bool_(False)
    text, _, _, losses, count, _ = jax.lax.while_loop(going, update, begin)
    return text, losses, count


def _check(model, inner, tolerance, rate) -> None:
    if np.ndim(inner) or inner < 0:
        raise UserError(f"inner must be one number of updates, 0 or more, not {inner}")
    if np.any(np.asarray(rate) <= 0) or np.any(np.asarray(tolerance) < 0):
        raise UserError("rate must be above 0 and tolerance not below it")
    dtype = getattr(getattr(model.denoiser, "module", None), "dtype", jnp.float32)
    if jnp.dtype(dtype) != jnp.float32:
        tell(f"null_text may not converge in {jnp.dtype(dtype).name}; load the model in float32")
