"""SDEdit: noise a picture half-way, denoise it with another prompt."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from .. import solvers
from ..core import chain, skipped
from ..errors import UserError
from ..transforms import Blend
from .cells import in_cells
from .generate import guidance_edit
from .registry import method
from .run import Draws, begin_noised, check_steps, encode, guided, pictures, walk


def _evaluations(p):
    return solvers.named(p["solver"]).evaluations(
        p["steps"] - skipped(p["steps"], p["strength"])
    ), 2


@method(
    paper="Meng et al. 2022, SDEdit: Guided Image Synthesis and Editing with SDEs (2108.01073)",
    start="picture",
    channels=(4,),
    evaluations=_evaluations,
    role="start",
    per_image=(
        "guidance",
        "rescale",
        "strength",
    ),
)
def sdedit(
    model,
    images,
    *,
    prompt: list[str],
    negative: list[str] | None = None,
    mask=None,
    strength: float = 0.8,
    steps: int = 50,
    guidance: float = 7.5,
    rescale: float = 0.0,
    solver: str = "ddim",
    eta: float | None = None,
    spacing: str | None = None,
    posterior: str = "sample",
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Noises the picture up to `strength` and denoises it with the prompt ("img2img").

    x = alpha z0 + sigma eps at grid position N - int(N strength), then the ordinary sampler.

    Args:
      prompt: what the picture shall show, one text per picture.
      negative: what to move away from; the empty prompt if not given.
      mask: [b, h, w] in [0, 1], 1 where the picture may change; elsewhere it is kept, noised to the
        level of each step.
      strength: share of the steps that run, in (0, 1]: little keeps the picture, much follows the
        prompt. int(steps * strength) steps run, truncated; fewer than one is an error.
      steps: length of the full grid.
      guidance: classifier-free guidance scale.
      rescale: 0 to 1, pulls the contrast of guided predictions back (Lin et al. 2023).
      solver: name of the update rule.
      eta: 0 deterministic to 1 ancestral, for solvers that have it; None: the solver's own.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      posterior: "sample" draws the picture's latent as diffusers does, "mean" takes its mean.
      seed: of the noise; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the starting noise, or a mapping of draws, in place of the seed.

    Source: algorithm 1 (VP form) on latents; diffusers' StableDiffusionImg2ImgPipeline.__call__.
    """
    count = len(images)
    rule = solvers.named(solver, eta=eta)
    draws = Draws(count, seed, index, noise)
    table = partial_table(model, rule, steps, strength, spacing, count)
    z0 = encode(model, images, posterior_noise(model, images, posterior, draws))
    eps = draws("start", z0.shape[1:])
    x = begin_noised(table, z0, eps)
    cond = guided(model, prompt, negative or [""] * count)
    edit = guidance_edit(guidance, rescale, count)
    if mask is not None:
        cells = jnp.asarray(in_cells(mask, model.factor))[..., None]
        edit = chain(edit, Blend(mask=cells, x0=z0, noise=eps))
    result = walk(model.denoiser, rule, edit, draws.on(table), x, cond,
                  watch=watch, preview=lambda x: pictures(model, x))  # fmt: skip
    return pictures(model, result.x)


def partial_table(model, rule, steps: int, strength, spacing, count: int):
    """The table whose first rows are idle, by one strength or by one per image."""
    check_steps(model, steps)
    strengths = np.atleast_1d(np.asarray(strength, np.float64))
    if strengths.shape[0] not in (1, count):
        raise UserError(f"strength has {strengths.shape[0]} values for {count} pictures")
    starts = [_start(steps, float(s)) for s in strengths]
    tables = [
        rule.steps(model.schedule, steps, spacing=spacing, start=s) for s in sorted(set(starts))
    ]
    if len(tables) == 1:
        return tables[0]
    if any(not np.array_equal(t.t, tables[0].t) for t in tables):
        raise UserError(
            f"{type(rule).__name__} needs the same strength for every picture of a batch"
        )
    active = np.stack([np.arange(len(tables[0].index)) >= s for s in starts])
    return tables[0].replace(active=active)


def posterior_noise(model, images, posterior: str, draws: Draws, purpose: str = "posterior"):
    """The draw of a picture's latent, or None for its mean."""
    if posterior not in ("sample", "mean"):
        raise UserError(f"posterior must be 'sample' or 'mean', not {posterior!r}")
    if posterior == "mean":
        return None
    return draws(purpose, model.latent_shape(*images.shape[1:3]))


def _start(steps: int, strength: float) -> int:
    if not 0 < strength <= 1:
        raise UserError(f"strength must be in (0, 1], not {strength:g}")
    start = skipped(steps, strength)
    if start == steps:
        least = -(-100 // steps) / 100
        raise UserError(
            f"strength {strength:g} of {steps} steps is less than one step; "
            f"use at least {least:g} or more steps"
        )
    return start
