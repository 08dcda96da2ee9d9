"""From a picture to noise along a deterministic path, and the path as the way back needs it.

table = editing_table(model, steps=50, strength=1.0, count=len(z0))
up = invert(model, z0, cond, table=table)              # up.x: the noisy end, up.recorded: the path
pivots = passed(up.recorded, z0)                       # the source after each row of `table`
down = walk(model.denoiser, DDIM(), edit, table, up.x, other)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import solvers
from ..core import Result, Schedule, Step, chain, reverse
from ..errors import UserError
from ..notices import tell
from ..solvers.fixed_point import FixedPoint
from ..transforms import Follow
from .cells import in_cells
from .run import Draws, encode, pictures, walk, walked_rows
from .sdedit import partial_table, posterior_noise

LABELS = ("target", "source")


def path(move):
    """Records the latent after every step."""
    return move.x_next


def path_and_answers(move):
    """Records both."""
    return move.x_next, move.prediction.eps


def answers(move):
    """Records the noise that every step used, guidance included."""
    return move.prediction.eps


class Scheduled(NamedTuple):
    """Stands for a bundle where only its noise levels matter."""

    schedule: Schedule


def editing_table(model, *, steps: int, count: int, strength=1.0, spacing: str | None = None,
                  clean: str | None = None) -> Step:  # fmt: skip
    """The DDIM table that a picture is encoded along and sampled along, noisiest level first.

    Args:
      model: a bundle, or `Scheduled` for other noise levels than its own.
      steps: rows of the full grid.
      count: number of pictures.
      strength: share of the rows that are walked, in (0, 1], or one per picture: both directions
        use the int(steps * strength) cleanest rows.
      spacing: leading, linspace or trailing; the schedule's own if not given.
      clean: the level of a clean latent: "one" (no noise at all), "first" (abar of training step
        0, as Stable Diffusion's editing code has it), or None for the schedule's own.
    """
    table = partial_table(model, solvers.DDIM(), steps, strength, spacing, count)
    if clean is None:
        return table
    if clean not in ("one", "first"):
        raise UserError(f"clean must be 'one' or 'first', not {clean!r}")
    abar = 1.0 if clean == "one" else float(model.schedule.abar[0])
    return ending_at(table, abar)


def ending_at(table: Step, abar: float) -> Step:
    """The same table with another signal power abar after its last row."""
    alpha, sigma = np.array(table.alpha_next), np.array(table.sigma_next)
    alpha[-1], sigma[-1] = np.sqrt(abar), np.sqrt(1 - abar)
    return table.replace(alpha_next=alpha, sigma_next=sigma)


def upward(table: Step, label: str = "target") -> Step:
    """The table from clean to noisy; rows that sampling skips are skipped at the other end."""
    if label not in LABELS:
        raise UserError(f"label must be 'target' or 'source', not {label!r}")
    flipped = reverse(table.replace(active=None), label)
    active = None if table.active is None else np.asarray(table.active)[..., ::-1]
    return flipped.replace(active=active)


def invert(model, z0, cond, *, table: Step, label: str = "target", edit=None, refine: int = 0,
           record=path, watch=None) -> Result:  # fmt: skip
    """DDIM backwards, clean to noisy: x_t = alpha_t x0(x_s, told) + sigma_t eps(x_s, told).

    Args:
      model: a bundle; only its denoiser is used.
      z0: [b, *rows, h, w, c] clean latents.
      cond: the condition, leaves [b, *rows, ...]: no branches of guidance, and one question per
        step, unless `edit` adds them.
      table: as sampling walks it (`editing_table`); rows that it skips are skipped here too.
      label: the time that the network is told while it sees the level s: "target", that of the
        noisier level t (Prompt-to-Prompt, null-text inversion, diffusers), or "source", its own
        (Song et al. 2021, Direct Inversion).
      edit: a Transform batched over images, such as Combine for guidance; None asks plainly.
      refine: fixed-point iterations per step (`solvers.FixedPoint`); 0 is the plain step.
      record: what to keep of every step: `path`, `answers` or any function of a Move.
      watch: called after every step.
    Returns: Result; x is the noisy end, recorded [b, N, ...] what was kept, row j belonging to the
      j-th cleanest step (see `passed` and `mirrored`), zeros where a row was skipped.
    Source: Song et al. 2021 (2010.02502) section 4.3; `NullInversion.next_step`; diffusers
    DDIMInverseScheduler.
    """
    if model.denoiser.kind == "sample" and float(np.asarray(table.sigma_next)[-1]) == 0:
        raise UserError(
            "a network that predicts the sample cannot begin without noise: clean='first'"
        )
    rule = FixedPoint(iterations=jnp.int32(refine)) if refine else solvers.DDIM()
    edit = chain() if edit is None else edit
    up = upward(table, label)
    return descend(model, edit, up, z0, cond, rule=rule, record=record, watch=watch)


def passed(recorded, z0):
    """[b, N, ...] the source's latent after each row of the sampling table, from a recorded path.

    The last row leads to z0 itself. Example: a Follow or a Blend puts a row back onto it.
    """

    def one(recorded, z0):
        return jnp.concatenate([z0[:, None], recorded[:, :-1]], axis=1)[:, ::-1]

    return jax.tree.map(one, recorded, z0)


def mirrored(recorded):
    """[b, N, ...] what inversion recorded on the segment of each row of the sampling table."""
    return jax.tree.map(lambda a: a[:, ::-1], recorded)


def confined(edit, mask, passed_path, factor: int):
    """The edit, and outside the mask the latents of the picture's own path (`passed`).

    Args:
      mask: [b, H, W] in pixels, 1 where the picture may change; None leaves the edit alone.
      factor: pixels of a cell's side.
    """
    if mask is None:
        return edit
    return chain(
        edit, Follow(mask=jnp.asarray(in_cells(mask, factor))[..., None], path=passed_path)
    )


def descend(model, edit, table: Step, x, cond, *, rule=None, record=None, watch=None) -> Result:
    """Walks a table, noisy to clean unless it is an `upward` one; DDIM unless a rule is given."""
    return walk(model.denoiser, rule or solvers.DDIM(), edit, table, x, cond, record=record,
                watch=watch, preview=lambda x: pictures(model, x))  # fmt: skip


def latents_of(model, images, posterior: str, draws: Draws):
    """[b, h, w, c] the latents of the pictures, drawn or their mean."""
    return encode(model, images, posterior_noise(model, images, posterior, draws))


def posterior_draws(noise):
    """An array given as noise is the draw of the latent: methods of two runs draw no other."""
    return noise if noise is None or isinstance(noise, Mapping) else {"posterior": noise}


def part(watch, before: int, total: int):
    """Lets one of several runs report as rows `before`, `before` + 1, ... of `total`."""
    if watch is None:
        return None
    return lambda done, _, preview: watch(before + done, total, preview)


def walked(table: Step) -> int:
    """How many rows of a table any picture walks."""
    return int(walked_rows(table).sum())


@dataclasses.dataclass(frozen=True)
class Report:
    """How well a picture came back.

    Attributes:
      latent: root mean square of the latent's error.
      psnr: dB of the decoded picture against the source.
      floor: dB of the autoencoder alone.
    """

    latent: float
    psnr: float
    floor: float

    def __str__(self) -> str:
        return (
            f"reconstruction: latent error {self.latent:.4g} (rms), {self.psnr:.1f} dB "
            f"(the autoencoder alone: {self.floor:.1f} dB)"
        )


def reports_apart(report, prompt, source, mask) -> bool:
    """Whether a report of the reconstruction needs a way back of its own: an edit is none."""
    return bool(report) and (prompt not in (None, source) or mask is not None)


def reports(model, images, z0, z, shown=None) -> list[Report]:
    """One Report per picture.

    Args:
      images: [b, h, w, 3] in [-1, 1].
      z0, z: [b, h, w, c] the source's latents and the reconstructed ones.
      shown: uint8 [b, h, w, 3], the decoded z if it is at hand already.
    """
    source = np.clip(np.asarray(images) / 2 + 0.5, 0, 1) * 255
    shown = pictures(model, z) if shown is None else shown
    error = np.asarray(z, np.float64) - np.asarray(z0, np.float64)
    latent = np.sqrt(np.mean(np.square(error), (1, 2, 3)))
    pairs = zip(latent, _psnr(shown, source), _psnr(pictures(model, z0), source), strict=True)
    return [Report(*map(float, values)) for values in pairs]


def tell_reports(found: list[Report]) -> None:
    """Puts reports into the result's notices, numbered where there are several pictures."""
    for number, report in enumerate(found, 1):
        tell(f"picture {number}: {report}" if len(found) > 1 else str(report))


def _psnr(shown, source):
    error = np.mean(np.square(shown.astype(np.float64) - source), (1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-10))
