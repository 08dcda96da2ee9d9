"""Where the rows of one edit start from: one noise, or a picture's inversion, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import solvers
from ..core import Cond, Solver, Step, first, skipped
from ..errors import UserError
from ..solvers.edict import turned
from ..transforms import Combine, Follow, Inject, NullTexts
from .direct_inversion import aligned_table
from .edict import coupled_run
from .inversion import answers, editing_table, invert, mirrored, part, passed, walked
from .negative_prompt import proximal_guidance, source_as_null, with_source
from .null_text import fit_null_texts
from .rows import Edits, in_rows, source_condition
from .run import Draws, begin_noised, per_image
from .sdedit import partial_table


class Start(NamedTuple):
    """The beginning of a walk of rows [source, target, ...]."""

    x: Any  # [edits, rows, h, w, c], or a pair of those
    table: Step
    rule: Solver
    cond: Cond  # leaves [edits, branches, rows, ...]
    links: tuple = ()  # what the inversion adds to the chain, behind guidance
    near: tuple = ()  # and before it, nearest the network
    guide: Any = None  # what takes the place of guidance
    up: Step | None = None  # from x, the whole edit is first walked along this table


class Asked(NamedTuple):
    """What an inversion is given.

    Attributes:
      z0: [edits, h, w, c] the pictures' latents.
      cond: leaves [edits, branches, rows, ...].
      guide: guidance of the edits.
      steps, strength, spacing: of the grid; one strength per edit.
      targets: per edit.
      draws: noise, one draw per edit.
      table: of sampling, as `Inversion.table` made it.
      watch: reports the way up.
    """

    z0: Any
    cond: Cond
    guide: Combine
    steps: int
    strength: Any
    spacing: str | None
    targets: int
    draws: Draws
    table: Any = None
    watch: Any = None


class Inversion(NamedTuple):
    """A way in which rows begin from a picture.

    Attributes:
      start: (model, Asked, knobs) -> Start.
      table: (model, Asked, knobs) -> the table of sampling.
      reports: how often the way up is reported while n rows are walked.
      calls: (parameters, n) -> network calls of both ways while n rows are walked, at most.
      branches: parameters -> how many texts each row is asked for.
      idle: rows of the grid that are never walked.
      noise: which draw an array given as noise is.
      knobs: parameters of its own, as the caller set them.
    """

    start: Callable[..., Start]
    table: Callable[..., Step]
    reports: Callable[[int], int] = lambda n: n
    calls: Callable[[dict, int], int] = lambda p, n: 2 * n
    branches: Callable[[dict], int] = lambda p: 2
    idle: int = 0
    noise: str = "posterior"
    knobs: Mapping[str, Any] = {}

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of what it can be told besides `Asked`."""
        signature = inspect.signature(self.start)
        return tuple(p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY)

    def rows(self, p: dict) -> int:
        """Rows that are walked under a method's parameters."""
        return p["steps"] - skipped(p["steps"], p["strength"]) - self.idle


def from_noise(model, edits: Edits, cond: Cond, *, steps: int, spacing: str | None, solver: str,
               height: int | None, width: int | None) -> Start:  # fmt: skip
    """All rows of an edit from one noise, by a solver that draws no other."""
    rule = _quiet(solver)
    table = rule.steps(model.schedule, steps, spacing=spacing).replace(active=None)
    shape = model.latent_shape(height or model.size, width or model.size)
    x = rule.begin(first(table), edits.draws("start", shape))
    return Start(in_rows(x, edits.targets), table, rule, cond)


def ddim(model, asked: Asked, *, label="target", clean=None, refine=0) -> Start:
    """DDIM inversion under the source prompt, without guidance."""
    start, _ = _inverted(model, asked, label=label, refine=refine)
    return start


def pnp_inversion(model, asked: Asked) -> Start:
    """The source row is put back onto the inverted path after every step.

    Source: Ju et al. 2024 (2310.01506) algorithm 1.
    """
    start, recorded = _inverted(model, asked)
    free = _by_row(asked, 0.0, 1.0)
    follow = Follow(
        mask=jnp.broadcast_to(free, (len(asked.z0), *free.shape)),
        path=passed(recorded, asked.z0)[:, :, None],
    )
    return start._replace(links=(follow,))


def negative_prompt(model, asked: Asked, *, towards_null=0.0, proximal=None, quantile=0.7,
                    pull=0.0, pull_below=400.0, dilate=1) -> Start:  # fmt: skip
    """The source prompt stands in for the null prompt, so that guidance cancels in the source row.

    Source: Miyake et al. 2023 (2305.16807).
    """
    start, _ = _inverted(model, asked)

    def null_is_source(a):
        source = jnp.broadcast_to(a[:, -1, :1], a[:, 0].shape)
        return a.at[:, 0].set(source)

    cond = jax.tree.map(null_is_source, asked.cond)
    if np.any(np.asarray(towards_null)):
        turned_to = source_as_null(jax.tree.map(lambda a: a[:, :, 0], cond), model, towards_null)
        cond = cond.replace(text=cond.text.at[:, 0].set(turned_to.text[:, :1]))
    knobs = dict(quantile=quantile, rate=pull, until=pull_below)
    return start._replace(cond=cond, guide=_proximal(asked, proximal, dilate, knobs))


def null_text(model, asked: Asked, *, inner=10, tolerance=1e-5, rate=1e-2, proximal=None,
              quantile=0.7, pull=0.0, pull_below=400.0, dilate=1) -> Start:  # fmt: skip
    """A null prompt per step, fitted until the guided source row keeps to the inverted path.

    Source: Mokady et al. 2023 (2211.09794).
    """
    knobs = dict(quantile=quantile, rate=pull, until=pull_below)
    guide = _proximal(asked, proximal, dilate, knobs, from_null=True)
    start, recorded = _inverted(model, asked)
    alone = jax.tree.map(lambda a: a[:, :, 0], asked.cond)
    fitted = fit_null_texts(model, asked.table, passed(recorded, asked.z0), start.x[:, 0], alone,
                            asked.guide.weights[:, 1], inner=inner, tolerance=tolerance, rate=rate,
                            watch=part(asked.watch, walked(asked.table), 0))  # fmt: skip
    if guide is not None:
        source = jax.tree.map(lambda a: a[:, -1, :1], asked.cond)
        start = start._replace(cond=with_source(asked.cond, source), guide=guide)
    return start._replace(near=(NullTexts(texts=fitted.texts),))


def direct_inversion(model, asked: Asked, *, injection=0.5, injected_steps=None) -> Start:
    """The noise of the way up is mixed into the targets, and takes the place of the source row's.

    So the source row retraces its path. Source: Elarabawy et al. 2022 (2211.07825).
    """
    up = invert(model, asked.z0, source_condition(asked.cond), table=asked.table, label="source",
                record=answers, watch=asked.watch)  # fmt: skip
    edits, every = len(asked.z0), np.iinfo(np.int32).max
    share = per_image(injection, edits, "injection")
    until = np.broadcast_to(np.asarray(every if injected_steps is None else injected_steps), edits)
    inject = Inject(
        recorded=mirrored(up.recorded)[:, :, None],
        amount=jnp.stack([_by_row(asked, 1.0, s) for s in share]),
        until=jnp.stack([_by_row(asked, every, u).astype(jnp.int32) for u in until]),
    )
    rows = in_rows(up.x, asked.targets)
    return Start(rows, asked.table, solvers.DDIM(), asked.cond, links=(inject,))


def edict(model, asked: Asked, *, mix=None, leapfrog=True, compat="") -> Start:
    """An exact inversion of a coupled pair, guided both ways.

    The way up walks all rows by the very program of the way down, so the same rounded questions get
    the same answers and the source row comes back exactly.

    Source: Wallace et al. 2023 (2211.12446).
    """
    rule, table = _coupled(model, asked, mix, leapfrog, compat)
    z0 = np.asarray(asked.z0, np.float64)[:, None]  # numpy keeps float64 whatever jax's default
    rows = np.broadcast_to(z0, (len(z0), 1 + asked.targets, *z0.shape[2:]))
    return Start((rows, rows), table, rule, asked.cond, up=turned(table))


def sdedit(model, asked: Asked, *, solver="ddim") -> Start:
    """All rows from the picture noised up to the strength, by a solver that draws no other noise.

    Source: Meng et al. 2022 (2108.01073).
    """
    eps = asked.draws("start", asked.z0.shape[1:])
    x = in_rows(begin_noised(asked.table, asked.z0, eps), asked.targets)
    return Start(x, asked.table, _quiet(solver), asked.cond)


def _grid(model, asked: Asked, *, clean=None, **_):
    return editing_table(model, steps=asked.steps, count=len(asked.z0), strength=asked.strength,
                         spacing=asked.spacing, clean=clean)  # fmt: skip


def _direct_grid(model, asked: Asked, **_):
    return aligned_table(model, asked.steps, asked.strength, len(asked.z0))


def _edict_grid(model, asked: Asked, *, mix=None, leapfrog=True, compat=""):
    return _coupled(model, asked, mix, leapfrog, compat)[1]


def _sdedit_grid(model, asked: Asked, *, solver="ddim"):
    return partial_table(model, _quiet(solver), asked.steps, asked.strength, asked.spacing,
                         len(asked.z0))  # fmt: skip


INVERSIONS = {
    "ddim": Inversion(ddim, _grid, calls=lambda p, n: (2 + p.get("refine", 0)) * n),
    "pnp_inversion": Inversion(pnp_inversion, _grid),
    "negative_prompt": Inversion(negative_prompt, _grid),
    "null_text": Inversion(
        null_text, _grid, lambda n: 2 * n, lambda p, n: (4 + p.get("inner", 10)) * n,
        lambda p: 3 if p.get("proximal") else 2,
    ),
    "direct_inversion": Inversion(direct_inversion, _direct_grid, idle=1),
    "edict": Inversion(edict, _edict_grid, calls=lambda p, n: 4 * n),
    "sdedit": Inversion(
        sdedit, _sdedit_grid, lambda n: 0,
        lambda p, n: solvers.named(p.get("solver", "ddim")).evaluations(n), noise="start"
    ),
}  # fmt: skip


def _inverted(model, asked: Asked, **how):
    """(Start by DDIM, the recorded path)."""
    told = source_condition(asked.cond)
    up = invert(model, asked.z0, told, table=asked.table, watch=asked.watch, **how)
    x = in_rows(up.x, asked.targets)
    return Start(x, asked.table, solvers.DDIM(), asked.cond), up.recorded


def _proximal(asked: Asked, kind, dilate, knobs: dict, **how):
    """What takes the place of guidance; None where it is not asked for."""
    if kind is None:
        return None
    if asked.guide.rescale is not None:
        raise UserError("proximal guidance has no rescale; leave one of them out")
    own = dict(guidance=asked.guide.weights[:, 1], **knobs)
    return proximal_guidance(kind, asked.z0, len(asked.z0), dilate, own, **how)


def _by_row(asked: Asked, source, target):
    """[rows, 1, 1, 1] one number for the source row, another for the targets."""
    return jnp.where(jnp.arange(1 + asked.targets) > 0, target, source)[:, None, None, None]


def _coupled(model, asked: Asked, mix, leapfrog, compat):
    return coupled_run(model, steps=asked.steps, strength=asked.strength, mix=mix,
                       leapfrog=leapfrog, spacing=asked.spacing, compat=compat)  # fmt: skip


def _quiet(solver: str) -> Solver:
    """The solver, unless it draws noise of its own at every step."""
    rule = solvers.named(solver)
    if rule.draws:
        raise UserError(f"{solver} draws noise, which would tear the rows apart; use ddim or plms")
    return rule
