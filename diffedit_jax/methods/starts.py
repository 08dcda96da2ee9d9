"""Where the rows of one edit start from: one noise, or a picture's inversion, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import solvers
from ..core import Cond, Solver, Step, first, skipped
from ..errors import UserError
from ..solvers.edict import EDICT, turned
from ..transforms import Combine, Follow, NullTexts
from .inversion import invert, part, passed, walked
from .null_text import fit_null_texts
from .rows import Edits, in_rows, source_condition
from .run import pictures, walk


class Start(NamedTuple):
    """The beginning of a walk of rows [source, target, ...]."""

    x: Any  # [edits, rows, h, w, c], or a pair of those
    table: Step
    rule: Solver
    cond: Cond  # leaves [edits, branches, rows, ...]
    links: tuple = ()  # what the inversion adds to the chain, behind guidance
    near: tuple = ()  # and before it, nearest the network


class Asked(NamedTuple):
    """What an inversion is given.

    Attributes:
      z0: [edits, h, w, c] the pictures' latents.
      cond: leaves [edits, branches, rows, ...].
      guide: guidance of the edits.
      table: of sampling by DDIM, from `editing_table`.
      steps, strength, spacing: what it was made of, for solvers with tables of their own.
      targets: per edit.
      watch: reports the way up.
    """

    z0: Any
    cond: Cond
    guide: Combine
    table: Step
    steps: int
    strength: Any
    spacing: str | None
    targets: int
    watch: Any = None


class Inversion(NamedTuple):
    """An inversion that Prompt-to-Prompt can start from.

    Attributes:
      start: (model, Asked) -> Start.
      reports: how often the way up is reported while n rows are walked.
      calls: network calls of both ways while n rows are walked, at most.
    """

    start: Callable[[Any, Asked], Start]
    reports: Callable[[int], int]
    calls: Callable[[int], int]


def from_noise(model, edits: Edits, cond: Cond, *, steps: int, spacing: str | None, solver: str,
               height: int | None, width: int | None) -> Start:  # fmt: skip
    """All rows of an edit from one noise, by a solver that draws no other."""
    rule = solvers.named(solver)
    if rule.draws:
        raise UserError(f"{solver} draws noise, which would tear the rows apart; use ddim or plms")
    table = rule.steps(model.schedule, steps, spacing=spacing).replace(active=None)
    shape = model.latent_shape(height or model.size, width or model.size)
    x = rule.begin(first(table), edits.draws("start", shape))
    return Start(in_rows(x, edits.targets), table, rule, cond)


def ddim(model, asked: Asked) -> Start:
    """DDIM inversion under the source prompt, without guidance."""
    start, _ = _inverted(model, asked)
    return start


def pnp_inversion(model, asked: Asked) -> Start:
    """The source row is put back onto the inverted path after every step.

    Source: Ju et al. 2024 (2310.01506) algorithm 1.
    """
    start, recorded = _inverted(model, asked)
    free = jnp.arange(1 + asked.targets)[:, None, None, None] > 0
    edits = len(asked.z0)
    follow = Follow(
        mask=jnp.broadcast_to(free.astype(jnp.float32), (edits, *free.shape)),
        path=passed(recorded, asked.z0)[:, :, None],
    )
    return start._replace(links=(follow,))


def negative_prompt(model, asked: Asked) -> Start:
    """The source prompt stands in for the null prompt, so that guidance cancels in the source row.

    Source: Miyake et al. 2023 (2305.16807).
    """
    start, _ = _inverted(model, asked)

    def null_is_source(a):
        source = jnp.broadcast_to(a[:, -1, :1], a[:, 0].shape)
        return a.at[:, 0].set(source)

    return start._replace(cond=jax.tree.map(null_is_source, start.cond))


def null_text(model, asked: Asked) -> Start:
    """A null prompt per step, fitted until the guided source row keeps to the inverted path.

    Source: Mokady et al. 2023 (2211.09794).
    """
    start, recorded = _inverted(model, asked)
    alone = jax.tree.map(lambda a: a[:, :, 0], asked.cond)
    fitted = fit_null_texts(model, asked.table, passed(recorded, asked.z0), start.x[:, 0], alone,
                            asked.guide.weights[:, 1],
                            watch=part(asked.watch, walked(asked.table), 0))  # fmt: skip
    return start._replace(near=(NullTexts(texts=fitted.texts),))


def edict(model, asked: Asked) -> Start:
    """An exact inversion of a coupled pair, guided both ways.

    Source: Wallace et al. 2023 (2211.12446).
    """
    rule = EDICT()
    idle = skipped(asked.steps, _one(asked.strength))
    table = rule.steps(model.schedule, asked.steps, spacing=asked.spacing, start=idle)
    alone = jax.tree.map(lambda a: a[:, :, 0], asked.cond)
    up = walk(model.denoiser, rule, asked.guide, turned(table), (asked.z0, asked.z0), alone,
              watch=asked.watch, preview=lambda x: pictures(model, x[0]))  # fmt: skip
    pair = tuple(in_rows(z, asked.targets) for z in up.x)
    return Start(pair, table, rule, asked.cond)


INVERSIONS = {
    "ddim": Inversion(ddim, lambda n: n, lambda n: 2 * n),
    "pnp_inversion": Inversion(pnp_inversion, lambda n: n, lambda n: 2 * n),
    "negative_prompt": Inversion(negative_prompt, lambda n: n, lambda n: 2 * n),
    "null_text": Inversion(null_text, lambda n: 2 * n, lambda n: 14 * n),
    "edict": Inversion(edict, lambda n: n, lambda n: 4 * n),
}


def _inverted(model, asked: Asked):
    """(Start by DDIM, the recorded path)."""
    told = source_condition(asked.cond)
    up = invert(model, asked.z0, told, table=asked.table, watch=asked.watch)
    x = in_rows(up.x, asked.targets)
    return Start(x, asked.table, solvers.DDIM(), asked.cond), up.recorded


def _one(strength) -> float:
    values = np.unique(np.asarray(strength))
    if len(values) > 1:
        raise UserError("edict needs the same strength for every picture of a batch")
    return float(values[0])
