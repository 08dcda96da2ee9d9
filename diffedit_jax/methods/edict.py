"""EDICT: exact inversion by two coupled latents; the edit is another prompt on the way back."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Step, skipped
from ..errors import UserError
from ..notices import tell
from ..solvers.edict import EDICT, turned
from .generate import guidance_edit
from .inversion import (
    Scheduled,
    confined,
    latents_of,
    part,
    passed,
    path,
    posterior_draws,
    reports,
    reports_apart,
    tell_reports,
    walked,
)
from .registry import method
from .run import Draws, guided, pictures, walk
from .sdedit import partial_table


def _evaluations(p):
    rows = p["steps"] - skipped(p["steps"], p["strength"])
    again = reports_apart(p["report"], p["prompt"], p["source"], p["mask"])
    return 2 * rows * (3 if again else 2), 2


@method(
    paper="Wallace et al. 2023, EDICT: Exact Diffusion Inversion via Coupled Transformations "
    "(2211.12446)",
    start="picture",
    channels=(4,),
    evaluations=_evaluations,
    role="start",
    per_image=("guidance",),
)
def edict(
    model,
    images,
    *,
    source: list[str],
    prompt: list[str] | None = None,
    negative: list[str] | None = None,
    mask=None,
    strength: float = 0.8,
    steps: int = 50,
    guidance: float = 3.0,
    mix: float | None = None,
    leapfrog: bool = True,
    compat: str = "",
    spacing: str | None = None,
    posterior: str = "sample",
    report: bool = False,
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Encodes a picture so that the way back is exact, then changes the prompt.

    Two latents take turns: each is stepped by DDIM with the noise predicted from the other, and
    after each step they are mixed, x <- p x + (1 - p) y. Every part can be undone in closed form,
    also under guidance; the pair is kept in float64 over the network's own precision.

    Args:
      source: what the picture shows, one text per picture.
      prompt: what it shall show; the source prompt if not given (reconstruction).
      negative: what to move away from, both ways; the empty prompt if not given.
      mask: [b, h, w] in [0, 1], 1 where the picture may change; elsewhere its own path is kept.
      strength: share of the steps that are walked, both ways, in (0, 1]; one for all pictures.
      steps: length of the full grid.
      guidance: classifier-free guidance scale, both ways.
      mix: p in (0, 1]; 0.93 up to 50 steps and closer to 1 for more, if not given.
      leapfrog: the two latents take turns in going first; without it x always does.
      compat: "official" for the grid of the authors' code, T - T/N, ..., T/N, 0.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      posterior: "sample" draws the picture's latent, "mean" takes its mean.
      report: measures the reconstruction under the source prompt, without mask (latent error,
        PSNR), and puts it into the notices; costs one more way back, unless that is the edit.
      seed: of the draws; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the posterior draw, or a mapping of draws, in place of the seed.

    Source: sections 4.2 to 4.4; salesforce/EDICT, edict_functions.py coupled_stablediffusion.
    """
    count = len(images)
    draws = Draws(count, seed, index, posterior_draws(noise))
    rule, table = coupled_run(model, steps=steps, strength=strength, mix=mix, leapfrog=leapfrog,
                              spacing=spacing, compat=compat)  # fmt: skip
    again = reports_apart(report, prompt, source, mask)
    rows, total = walked(table), (3 if again else 2) * walked(table)
    z0 = latents_of(model, images, posterior, draws)
    told = [guided(model, p, negative or [""] * count) for p in (source, prompt or source)]
    edit = guidance_edit(guidance, 0.0, count)

    def run(steps, x, cond, phase, edit=edit):  # the same record, hence the same program, both ways
        shown = part(watch, phase * rows, total)
        return walk(model.denoiser, rule, edit, steps, x, cond, record=path, watch=shown,
                    preview=lambda pair: pictures(model, pair[0]))  # fmt: skip

    up = run(turned(table), (z0, z0), told[0], 0)
    kept = None if mask is None else _path(up.recorded, z0)
    down = run(table, up.x, told[1], 1, confined(edit, mask, kept, model.factor))
    edited = pictures(model, down.x[0])
    if report:
        back = run(table, up.x, told[0], 2) if again else down
        tell_reports(reports(model, images, z0, back.x[0], pictures(model, back.x[0])))
    return edited


def coupled_run(model, *, steps: int, strength: float = 0.8, mix: float | None = None,
                leapfrog: bool = True, spacing: str | None = None,
                compat: str = "") -> tuple[EDICT, Step]:  # fmt: skip
    """(solver, sampling table) of an EDICT run; `turned(table)` is the way up."""
    if compat not in ("", "official"):
        raise UserError(f"compat must be 'official' or nothing, not {compat!r}")
    if np.unique(strength).size > 1:
        raise UserError("edict needs one strength for all pictures of a batch")
    schedule = model.schedule
    if compat:
        if spacing not in (None, "leading"):
            raise UserError(f"edict with compat=official has leading spacing, not {spacing}")
        schedule = dataclasses.replace(schedule, steps_offset=0, set_alpha_to_one=False)
        spacing = "leading"
    strength = float(np.unique(strength)[0])
    table = partial_table(Scheduled(schedule), EDICT(), steps, strength, spacing, 1)
    return EDICT(mix=np.float64(_mix(mix, walked(table))), leapfrog=bool(leapfrog)), table


def default_mix(rows: int) -> float:
    """p for a run of so many steps: 0.93 up to 50, beyond that p^(-2 rows) stays what it is.

    The difference of the pair grows by p^-2 per step of the way up: 1400 times over 50 steps at
    0.93, 4e12 times over 200.
    """
    return 0.93 ** min(1.0, 50 / rows)


def _mix(mix: float | None, rows: int) -> float:
    """Checks p against the range that is useful for so many steps: 0.9 to 0.97 at 50."""
    if mix is None:
        return default_mix(rows)
    if not 0 < mix <= 1:
        raise UserError(f"mix must be in (0, 1], not {mix:g}")
    low, high = (bound ** min(1.0, 50 / rows) for bound in (0.9, 0.97))
    if not low <= mix <= high:
        effect = "the pair drifts apart" if mix < low else "the pair hardly couples"
        tell(f"mix {mix:g} is outside {low:.3f} to {high:.3f} for {rows} steps: {effect}")
    return mix


def _path(recorded, z0):
    """The path on which both latents came up, in float64."""
    with jax.enable_x64(True):
        z0 = jnp.asarray(np.asarray(z0), jnp.float64)
        return passed(recorded, (z0, z0))
