"""From edited pictures on disk to figures: every method, every kind of edit, and the verdicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffedit_jax.bench import shards
from diffedit_jax.bench.edit_measures import Values, measured, summary
from diffedit_jax.bench.entrants import RECONSTRUCT
from diffedit_jax.bench.quality_of_methods import Plan, edits_of, load
from diffedit_jax.bench.quality_of_model import reconstruct
from diffedit_jax.bench.verdict import gain
from diffedit_jax.scenes import Edit

TRUTH, COPY, CODED, STILL = "the truth", "the source", "the truth, coded", "the source, coded"
REFERENCES = (TRUTH, COPY, CODED, STILL)  # what they are: see `references`


def references(model: Any, edits: list[Edit]) -> dict[str, np.ndarray]:
    """Pictures that bound every method: uint8 [n, 64, 64, 3] by name.

    The truth is the judge's ceiling; the truth through the autoencoder is the ceiling of what
    works in latents. The source does nothing and keeps everything; through the autoencoder it is
    the baseline at strength 0.
    """
    source = np.stack([edit.source_image for edit in edits])
    truth = np.stack([edit.target_image for edit in edits])
    coded = {CODED: reconstruct(model, truth), STILL: reconstruct(model, source)}
    return {TRUTH: truth, COPY: source, **coded}


def missing(plan: Plan) -> list[str]:
    """Names of the pieces that are not there yet."""
    return [f"{e.name}, {k}" for e, k in plan.pieces() if not plan.file(e, k).is_file()]


def pictures_of(plan: Plan, kind: str) -> dict[str, np.ndarray]:
    """What every entrant made of the edits of a kind, uint8 [n, 64, 64, 3]; refusals left out."""
    found = {}
    for entrant, here in plan.pieces():
        piece = shards.load(plan.file(entrant, here)) if here == kind else None
        if piece is not None and len(piece.pictures):
            found[entrant.name] = piece.pictures
    return found


def figures(plan: Plan, judge: Any, lpips: Callable | None = None) -> dict:
    """Everything that the report shows, ready for JSON.

    {"kinds": {kind: {name: values with intervals}}, "gains": {kind: {name: see verdict.gain}},
    "methods": {name: seconds, evaluations}, "refused", "left_out", "options"}
    """
    found = {"options": _options(plan, lpips), "methods": _costs(plan), "kinds": {}, "gains": {},
             "refused": _refused(plan), "left_out": plan.left_out}  # fmt: skip
    for kind in plan.kinds:
        values = values_of(plan, kind, judge, lpips)
        found["kinds"][kind] = {name: summary(each) for name, each in values.items()}
        if kind != RECONSTRUCT:
            found["gains"][kind] = gains(plan, values)
    return found


def values_of(plan: Plan, kind: str, judge: Any, lpips: Callable | None) -> dict[str, Values]:
    """The measured values of every picture of a kind, by name; the references first."""
    edits = edits_of(kind, plan.count, plan.seed)
    pictures = {**references(load(plan.model), edits), **pictures_of(plan, kind)}
    if kind == RECONSTRUCT:  # source and truth are one
        pictures = {k: v for k, v in pictures.items() if k not in (TRUTH, COPY, CODED)}
    return {name: measured(judge, each, edits, lpips) for name, each in pictures.items()}


def gains(plan: Plan, values: dict[str, Values]) -> dict[str, dict]:
    """What every method preserves beyond the baseline's curve, strength 0 included."""
    curve = [values[e.name] for e in plan.entrants if e.baseline and e.name in values]
    if not curve:
        return {}
    others = [e.name for e in plan.entrants if not e.baseline and e.name in values]
    return {name: gain(values[name], [values[STILL], *curve]) for name in others}


def _options(plan: Plan, lpips) -> dict:
    return {"edits": plan.count, "seed": plan.seed, "model": plan.model,
            "defaults": load(plan.model).defaults, "lpips": lpips is not None,
            "entrants": {e.name: {"method": e.method, "model": e.model, **e.options}
                         for e in plan.entrants}}  # fmt: skip


def _costs(plan: Plan) -> dict[str, dict]:
    """Seconds of one picture within a batch (the median, so compiling does not count), calls."""
    costs: dict[str, dict] = {}
    for entrant, kind in plan.pieces():
        piece = shards.load(plan.file(entrant, kind))
        if piece is None or "refused" in piece.facts:
            continue
        calls, rows = piece.facts["evaluations"]
        cost = costs.setdefault(entrant.name, {"evaluations": calls, "rows": rows, "seconds": []})
        cost["seconds"] += piece.facts["seconds"]
    return {n: {**c, "seconds": round(float(np.median(c["seconds"])), 3)} for n, c in costs.items()}


def _refused(plan: Plan) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for entrant, kind in plan.pieces():
        piece = shards.load(plan.file(entrant, kind))
        if piece is not None and "refused" in piece.facts:
            found.setdefault(entrant.name, {})[kind] = piece.facts["refused"]
    return found
