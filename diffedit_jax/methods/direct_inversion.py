"""Direct Inversion (2211.07825): the noise found on the way up is mixed in on the way back.

Not to be confused with PnP Inversion (2310.01506), first released under the same name:
see `pnp_inversion`.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from .. import solvers
from ..core import chain, levels, skipped, table
from ..errors import UserError
from ..transforms import Inject
from .generate import guidance_edit
from .inversion import (
    Scheduled,
    confined,
    descend,
    editing_table,
    invert,
    latents_of,
    mirrored,
    part,
    passed,
    path_and_answers,
    posterior_draws,
    walked,
)
from .registry import method
from .run import Draws, check_steps, guided, per_image, pictures


def _evaluations(p):
    if p["compat"]:
        return p["steps"] + (p["sampling_steps"] or p["steps"]), 2
    return 2 * (p["steps"] - skipped(p["steps"], p["strength"]) - 1), 2


@method(
    paper="Elarabawy et al. 2022, Direct Inversion: Optimization-Free Text-Driven Real Image "
    "Editing (2211.07825)",
    start="picture",
    channels=(4,),
    evaluations=_evaluations,
    role="start",
    per_image=(
        "guidance",
        "strength",
        "injection",
        "injected_steps",
    ),
)
def direct_inversion(
    model,
    images,
    *,
    prompt: list[str],
    source: list[str] | None = None,
    negative: list[str] | None = None,
    mask=None,
    injection: float = 0.5,
    injected_steps: int | None = None,
    strength: float = 1.0,
    steps: int = 100,
    guidance: float = 3.0,
    sampling_steps: int | None = None,
    inject: str = "noise",
    compat: str = "",
    eta: float = 0.0,
    posterior: str = "sample",
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Encodes a picture by DDIM and mixes the noise that this took into the guided prediction.

    up: x_t from x_s and e_s = eps(x_s, s), without guidance; down: eps <- eps + lambda (e_s - eps).
    Noise is mixed in on the segment where it was recorded, so lambda 1 gives the picture back; the
    official code is one segment off (compat="official").

    Args:
      prompt: what the picture shall show, one text per picture.
      source: what the way up is told; the empty prompt if not given, as in the paper.
      negative: what to move away from; the empty prompt if not given.
      mask: [b, h, w] in [0, 1], 1 where the picture may change; elsewhere its own path is kept
        (not with compat="official").
      injection: lambda, 0 (plain inversion and editing) to 1 (the picture itself).
      injected_steps: how many steps of the way back are mixed, from the noisiest; all if not given.
      strength: share of the steps that are walked, both ways, in (0, 1].
      steps: K levels, 0, T/K, ..., T - T/K, and K - 1 moves between them.
      guidance: classifier-free guidance scale on the way back; about 3.
      sampling_steps: N, if it is not K (compat="official" only, and without mixing noise).
      inject: "noise" mixes the recorded noise; "latent" mixes the noisy latent as if it were noise
        (compat="official" only; the code's branch without `exp_method`).
      compat: "official" for its levels (T - T/K is left as T - T/K + 1) and its indexing.
      eta: 0 deterministic to 1 ancestral, on the way back.
      posterior: "sample" draws the picture's latent, "mean" takes its mean.
      seed: of the draws; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the posterior draw, or a mapping of draws, in place of the seed.

    Source: adham-elarabawy/direct-inversion, pipeline/direct_inversion_pipeline.py.
    """
    count = len(images)
    draws = Draws(count, seed, index, posterior_draws(noise))
    if compat and mask is not None:
        raise UserError("compat='official' leaves the path that a mask keeps; use the default")
    up_table, down_table = _tables(model, steps, sampling_steps, strength, inject, compat, count)
    before, total = walked(up_table), walked(up_table) + walked(down_table)
    z0 = latents_of(model, images, posterior, draws)
    up = invert(model, z0, model.condition(source or [""] * count), table=up_table,
                label="source", record=path_and_answers, watch=part(watch, 0, total))  # fmt: skip
    climbed, answers = up.recorded
    rows = len(down_table.index)
    shape = (count, rows, *up.x.shape[1:])
    given = mirrored(answers) if inject == "noise" and rows == len(up_table.index) else (
        jnp.broadcast_to(up.x[:, None], shape))  # fmt: skip
    scale = np.maximum(guidance, 1) if compat else guidance
    edit = chain(
        guidance_edit(scale, 0.0, count), _injected(given, injection, injected_steps, count)
    )
    edit = confined(edit, mask, passed(climbed.at[:, 0].set(z0), z0), model.factor)
    cond = guided(model, prompt, negative or [""] * count)
    rule = solvers.named("ddim", eta=eta)
    down = descend(model, edit, draws.on(down_table), up.x, cond, rule=rule,
                   watch=part(watch, before, total))  # fmt: skip
    return pictures(model, down.x)


def aligned_table(model, steps: int, strength, count: int):
    """Levels T - T/K, ..., T/K, 0 of the schedule: sampling walks exactly what inversion walked.

    The last row, from level 0 to itself, is never walked.
    """
    zero = dataclasses.replace(model.schedule, steps_offset=0, set_alpha_to_one=False)
    rows = editing_table(Scheduled(zero), steps=steps, count=count, strength=strength,
                         spacing="leading")  # fmt: skip
    active = np.array(rows.active)
    active[..., -1] = False
    if not active.any():
        raise UserError(f"strength {strength} of {steps} steps leaves no move; use more of either")
    return rows.replace(active=active)


def _tables(model, steps, sampling_steps, strength, inject, compat, count):
    """(table of the way up, table of the way back), both noisiest first."""
    if compat not in ("", "official"):
        raise UserError(f"compat must be 'official' or nothing, not {compat!r}")
    if inject not in ("noise", "latent"):
        raise UserError(f"inject must be 'noise' or 'latent', not {inject!r}")
    if not compat:
        if sampling_steps not in (None, steps) or inject == "latent":
            raise UserError("sampling_steps and inject='latent' need compat='official'")
        rows = aligned_table(model, steps, strength, count)
        return rows, rows
    return _official_tables(model, steps, sampling_steps or steps, strength, inject)


def _official_tables(model, steps, sampling_steps, strength, inject):
    """Inversion over 0, T/K, ... with an identity as its last move; sampling one timestep above."""
    train = model.schedule.train_steps
    check_steps(model, steps)
    if np.any(np.asarray(strength) != 1):
        raise UserError("compat='official' walks all steps; leave strength at 1")
    if train % steps or train % sampling_steps:
        raise UserError(f"compat='official' needs step counts that divide {train}")
    if sampling_steps != steps and inject == "noise":
        raise UserError("to mix noise where it was recorded, sampling_steps must be steps")
    t = np.arange(train - train // steps, -1, -(train // steps))
    t = np.append(t[0], t)
    up = table(t, *levels(model.schedule.abar[t])).replace(active=None)
    one = dataclasses.replace(model.schedule, steps_offset=1, set_alpha_to_one=False)
    down = solvers.DDIM().steps(one, sampling_steps, spacing="leading").replace(active=None)
    return up, down


def _injected(recorded, amount, until, count: int) -> Inject:
    until = np.iinfo(np.int32).max if until is None else until
    if np.any(np.asarray(amount) < 0) or np.any(np.asarray(amount) > 1):
        raise UserError(f"injection must be between 0 and 1, not {amount}")
    until = jnp.broadcast_to(jnp.asarray(until, jnp.int32), (count,))
    return Inject(recorded=recorded, amount=per_image(amount, count, "injection"), until=until)
