"""DDIM inversion: a picture to its noise by the deterministic ODE, and back with another prompt."""

from __future__ import annotations

import numpy as np

from .. import solvers
from ..core import chain, skipped
from ..notices import tell
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
from .run import Draws, guided, pictures

_OF_A_REPORT = ("report", "prompt", "source", "mask", "guidance", "inversion_guidance")


def _evaluations(p):
    rows = p["steps"] - skipped(p["steps"], p["strength"])
    again = _reports_apart(*(p[name] for name in _OF_A_REPORT))
    return rows * (2 + p["refine"] + again), 2


@method(
    paper="Song et al. 2021, Denoising Diffusion Implicit Models (2010.02502), section 4.3",
    start="picture",
    channels=(4,),
    evaluations=_evaluations,
    role="start",
    per_image=(
        "guidance",
        "strength",
        "inversion_guidance",
    ),
)
def ddim_inversion(
    model,
    images,
    *,
    source: list[str],
    prompt: list[str] | None = None,
    negative: list[str] | None = None,
    mask=None,
    strength: float = 1.0,
    steps: int = 50,
    guidance: float = 7.5,
    inversion_guidance: float = 1.0,
    label: str = "target",
    clean: str | None = None,
    refine: int = 0,
    eta: float = 0.0,
    spacing: str | None = None,
    posterior: str = "mean",
    report: bool = False,
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Encodes a picture into noise under the source prompt, and samples back with the prompt.

    up: x_t = alpha_t x0(x_s, t) + sigma_t eps(x_s, t), clean to noisy; down: DDIM with guidance.
    The way back is exact only for short steps, the same prompt and the same guidance.

    Args:
      source: what the picture shows, one text per picture.
      prompt: what it shall show; the source prompt if not given (reconstruction).
      negative: what to move away from; the empty prompt if not given.
      mask: [b, h, w] in [0, 1], 1 where the picture may change; elsewhere its own path is kept.
      strength: share of the steps that are walked, both ways, in (0, 1].
      steps: length of the full grid.
      guidance: classifier-free guidance scale on the way back; 1 reconstructs best.
      inversion_guidance: the same on the way up; anything but 1 makes the way back less exact.
      label: the time the network is told on the way up: "target", the level that a step leads to,
        or "source", the level it leaves.
      clean: level of the clean latent: "one" (no noise), "first" (the schedule's first level), or
        the schedule's own if not given.
      refine: fixed-point iterations per step of the way up; 1 to 3 make the way back more exact.
      eta: 0 deterministic to 1 ancestral, on the way back.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      posterior: "mean" takes the mean of the picture's latent, "sample" draws it.
      report: measures the reconstruction under the source prompt (latent error, PSNR), without mask
        and guided as the way up was, and puts it into the notices; costs one more way back, unless
        that is the edit.
      seed: of the draws, where there are any; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the posterior draw, or a mapping of draws, in place of the seed.

    Source: diffusers' DDIMInverseScheduler (target), guided-diffusion's ddim_reverse_sample
    (source).
    """
    count = len(images)
    draws = Draws(count, seed, index, posterior_draws(noise))
    table = editing_table(model, steps=steps, count=count, strength=strength, spacing=spacing,
                          clean=clean)  # fmt: skip
    rows = walked(table)
    again = _reports_apart(report, prompt, source, mask, guidance, inversion_guidance)
    total = (3 if again else 2) * rows
    z0 = latents_of(model, images, posterior, draws)
    negative = negative or [""] * count
    asked, up_edit = _questions(model, source, negative, inversion_guidance, count)
    up = invert(model, z0, asked, table=table, label=label, edit=up_edit, refine=refine,
                watch=part(watch, 0, total))  # fmt: skip
    cond = guided(model, prompt or source, negative)
    rule = solvers.named("ddim", eta=eta)
    edit = guidance_edit(guidance, 0.0, count)
    edit = confined(edit, mask, passed(up.recorded, z0), model.factor)
    down = descend(model, edit, draws.on(table), up.x, cond, rule=rule,
                   watch=part(watch, rows, total))  # fmt: skip
    edited = pictures(model, down.x)
    if report:
        z = down.x
        if again:
            back = part(watch, 2 * rows, total)
            z = descend(model, up_edit or chain(), table, up.x, asked, watch=back).x
        tell_reports(reports(model, images, z0, z, None if again else edited))
    return edited


def _reports_apart(report, prompt, source, mask, guidance, inversion_guidance) -> bool:
    other = not np.all(np.asarray(guidance) == np.asarray(inversion_guidance))
    return reports_apart(report, prompt, source, mask) or (bool(report) and other)


def _questions(model, source, negative, guidance, count: int):
    """(condition, edit) of the way up: the source prompt alone, or with guidance and a notice."""
    if np.all(np.asarray(guidance) == 1):
        return model.condition(source), None
    tell("inversion_guidance other than 1 makes the way back less exact; 1 is usual")
    return guided(model, source, negative), guidance_edit(guidance, 0.0, count)
