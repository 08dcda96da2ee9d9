"""Every editing method on the same rendered edits: who does what was asked, and what stays.

Work is cut into pieces, one method x one kind of edit, each written to disk when it is done: a
run that was killed goes on where it was, and several processes can share the work.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffedit_jax import api
from diffedit_jax.bench import entrants as takers
from diffedit_jax.bench import shards, unseen
from diffedit_jax.bench.entrants import RECONSTRUCT, Entrant
from diffedit_jax.bench.quality_of_model import BATCH, SEEDS, in_batches
from diffedit_jax.errors import NotFiniteError, UserError
from diffedit_jax.scenes import Edit, sample_edit

FORMAT = 1  # of what a piece holds; a new one makes old pieces count as missing
load = functools.cache(api.load)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
      folder: where pieces and reports go.
      entrants: who takes part.
      left_out: {method: why it does not}.
      kinds: kinds of edits, of `entrants.ALL_KINDS`.
      count: edits of each kind.
      seed: which edits; also of the methods' own noise.
      model: of text to image.
    """

    folder: Path
    entrants: list[Entrant]
    left_out: dict
    kinds: tuple[str, ...]
    count: int
    seed: int
    model: str

    def pieces(self) -> list[tuple[Entrant, str]]:
        """Everything that is to be done, one entrant after the other."""
        return [(e, k) for e in self.entrants for k in self.kinds if takers.takes_part(e, k)]

    def file(self, entrant: Entrant, kind: str) -> Path:
        """Where a piece is kept; weights, options, edits and defaults all decide its name."""
        model = load(entrant.model)
        key = {"entrant": entrant.name, "kind": kind, "method": entrant.method,
               "options": entrant.options, "weights": model.origin["digest"],
               "defaults": model.defaults, "count": self.count, "seed": self.seed,
               "format": FORMAT}  # fmt: skip
        return shards.file_of(self.folder / "pieces", key)


@functools.lru_cache(maxsize=16)
def edits_of(kind: str, count: int, seed: int) -> list[Edit]:
    """Edits of one kind in the plain style, of seeds that nothing else uses."""
    if kind == RECONSTRUCT:
        return takers.reconstructions(edits_of("object", count, seed))
    rng = np.random.default_rng((SEEDS["methods"] + seed, takers.ALL_KINDS.index(kind)))
    if kind in unseen.UNSEEN:
        return unseen.unseen_edits(rng, kind, count)
    return [sample_edit(rng, kind, style="none") for _ in range(count)]


def apply(model: Any, entrant: Entrant, edits: Sequence[Edit], seed: int) -> shards.Piece:
    """All edits by one method in equal batches; a refusal is kept as such, with its reason."""
    batch, spent = min(BATCH, len(edits)), []

    def part(start, rows):
        began = time.perf_counter()
        seeds = [SEEDS["methods"] + seed + start + k for k in range(len(rows))]
        pictures = np.stack([edit.source_image for edit in rows])
        told = takers.arguments(entrant, rows, seeds)
        image = api.edit(model, pictures, entrant.method, **told).image
        spent.append((time.perf_counter() - began) / len(rows))
        return image

    facts = {"evaluations": takers.calls(entrant, model.defaults)}
    try:
        pictures = in_batches(part, list(edits), batch=batch)
    except (UserError, NotFiniteError) as error:
        return shards.Piece(np.zeros((0, 64, 64, 3), np.uint8), {**facts, "refused": str(error)})
    return shards.Piece(pictures, {**facts, "seconds": spent})


def run(plan: Plan, shard: tuple[int, int] = (0, 1), say: Callable = print) -> None:
    """Does what this shard still has to do, saying how long it will take.

    All pieces of an entrant belong to one shard: they share its compiled program.
    """
    (plan.folder / "pieces").mkdir(parents=True, exist_ok=True)
    costs = [work(entrant, plan.count) for entrant in plan.entrants]
    own = [plan.entrants[k] for k in shards.dealt(costs, shard)]
    todo = [p for p in plan.pieces() if p[0] in own and not plan.file(*p).is_file()]
    if not todo:
        return
    clock = Clock([work(entrant, plan.count) for entrant, _ in todo])
    clock.calibrate(seconds_per_row(load(plan.model), min(BATCH, plan.count)))
    say(f"{len(todo)} pieces to do, about {clock.minutes():.0f} min and the time to compile")
    for number, (entrant, kind) in enumerate(todo, 1):
        piece = apply(load(entrant.model), entrant, edits_of(kind, plan.count, plan.seed),
                      plan.seed)  # fmt: skip
        shards.save(plan.file(entrant, kind), piece)
        spent = clock.lap()
        why = f": left out, {piece.facts['refused']}" if "refused" in piece.facts else ""
        say(f"{number} of {len(todo)}: {entrant.name}, {kind}, {spent:.0f} s{why}; "
            f"about {clock.minutes():.0f} min left")  # fmt: skip


def work(entrant: Entrant, count: int) -> float:
    """Rows that pass through the network for one piece."""
    calls, rows = takers.calls(entrant, load(entrant.model).defaults)
    return float(calls * rows * count)


def seconds_per_row(model: Any, batch: int) -> float:
    """Measured on a short run of the baseline, its program compiled before."""
    edits = edits_of("object", batch, 0)
    short = Entrant("sdedit", "sdedit", "", {"strength": 0.2})
    calls, rows = takers.calls(short, model.defaults)
    apply(model, short, edits, 0)
    return apply(model, short, edits, 0).facts["seconds"][0] / (calls * rows)


class Clock:
    """How long the rest takes: from a first measurement, then from what was done so far."""

    def __init__(self, costs: Sequence[float]):
        self._left, self._done = list(costs), 0.0
        self._spent, self._rate = 0.0, 0.0
        self._last = time.monotonic()

    def calibrate(self, seconds_per_row: float) -> None:
        """Takes a first rate and starts to count from now."""
        self._rate, self._last = seconds_per_row, time.monotonic()

    def lap(self) -> float:
        """One more piece is done; returns its seconds."""
        spent = time.monotonic() - self._last
        self._last += spent
        self._spent += spent
        self._done += self._left.pop(0)
        self._rate = self._spent / self._done
        return spent

    def minutes(self) -> float:
        """Minutes that the rest will take."""
        return sum(self._left) * self._rate / 60


def tell(text: str) -> None:
    """One line of progress, apart from results."""
    print(f"diffedit: {text}", file=sys.stderr, flush=True)
