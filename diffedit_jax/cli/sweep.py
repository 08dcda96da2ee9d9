"""`--sweep KEY=VALUES`: many variants of one edit, as one labelled picture."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np

from .. import images
from ..errors import UserError
from ..methods.registry import Method
from ..sheets import Grid
from ..sweeps import Sweep, cell_recipe, checked_axes, sweep
from .jobs import TEXTS, Job, jobs_of
from .values import checked_prompt, checked_seed, parameter

_RANGE = re.compile(r"([^:,]+):([^:,]+):([^:,]+)")


def axes_of(method: Method, texts: list[str]) -> dict[str, list]:
    """`--sweep` options as values by parameter, in the order given.

    KEY=A,B,C or KEY=START:STOP:COUNT (both ends included); texts are separated by |.
    Raises: UserError for an unknown key, a key named twice, or values that do not fit it.
    """
    axes: dict[str, list] = {}
    for text in texts:
        key, sign, values = text.partition("=")
        if not sign or not key:
            raise UserError(f"--sweep {text} should be --sweep KEY=A,B,C or KEY=START:STOP:COUNT")
        if key not in method.parameters:
            raise method.unknown(key)
        if key in axes:
            raise UserError(f"{key} is swept twice")
        axes[key] = _values(method, key, values)
    return axes


def checked_sweep(options: argparse.Namespace) -> tuple[list[Job], dict[str, list]]:
    """(one job per sheet, what is swept), refused before a model is loaded."""
    if options.preview is not None or options.list:
        raise UserError("--sweep goes with neither --preview nor --list")
    jobs = jobs_of(options)
    axes = axes_of(jobs[0].method, options.sweep)
    if "seed" in axes and options.seed:
        raise UserError("seed is swept and given; leave one of them out")
    for job in jobs:
        given = _given(job, axes)
        checked_axes(job.method, axes, given)
        swept = {name: values[0] for name, values in axes.items()}
        job.method.complete({k: v for k, v in {**given, **swept}.items() if k != "size"})
    return jobs, axes


def run_sweep(model: Any, job: Job, axes: dict, options: argparse.Namespace, watch) -> Sweep:
    """Runs one sheet."""
    given = _given(job, axes)
    if job.image is not None:
        given["original_size"] = getattr(options, "original_size", False)
    return sweep(model, job.image, job.method.name, axes, batch=options.batch, watch=watch, **given)


def write_sweep(job: Job, found: Sweep, files: bool) -> list[str]:
    """Writes the sheet, and with `files` every cell beside it; returns notices."""
    job.out.parent.mkdir(exist_ok=True)
    notices = images.write(job.out, found.sheet(), found.recipe)
    if files:
        for cell, image, recipe in zip(found.cells, found.images, found.recipes, strict=True):
            notices += images.write(_beside(job.out, cell), image, recipe)
    return notices


def one_cell(said: dict, shown: np.ndarray, wanted: str | None) -> tuple[dict, np.ndarray]:
    """The recipe and the picture of a sheet's cell; a single picture's own where none is wanted."""
    if "sweep" not in said:
        if wanted:
            raise UserError("the picture is no sheet of a sweep; leave --cell out")
        return said, shown
    try:
        own, number = cell_recipe(said, wanted or "")
        axes = [(str(n), tuple(v)) for n, v in said["sweep"]["axes"]]
        return own, Grid.of(axes, said["sweep"]["tile"]).cut(shown, number)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError("the recipe's sweep is damaged") from error


def _given(job: Job, axes: dict) -> dict[str, Any]:
    seed = {} if "seed" in axes else {"seed": job.seed}
    return {**job.rest, **job.own, **seed}


def _values(method: Method, key: str, text: str) -> list:
    """The values of one axis, each checked against the parameter's declaration."""
    if key in TEXTS:
        parts = [part.strip() for part in text.split("|")]
        return [checked_prompt(key, part) for part in parts if part]
    kinds = method.parameters[key].kind
    found = _RANGE.fullmatch(text.strip())
    if found and ("float" in kinds or "int" in kinds):
        return [_typed(method, key, value) for value in _spread(key, kinds, *found.groups())]
    return [_typed(method, key, part.strip()) for part in text.split(",") if part.strip()]


def _typed(method: Method, key: str, value: Any) -> Any:
    return checked_seed(value) if key == "seed" else parameter(method, key, value)


def _spread(key: str, kinds: str, start: str, stop: str, count: str) -> list:
    """COUNT values from START to STOP."""
    try:
        first, last, number = float(start), float(stop), int(count)
    except ValueError as error:
        raise UserError(f"{key}={start}:{stop}:{count} should be START:STOP:COUNT") from error
    if not 0 <= number <= 10_000 or not np.isfinite([first, last]).all():
        raise UserError(f"{key}={start}:{stop}:{count} is no range of 1 to 10,000 values")
    values = [float(f"{v:.9g}") for v in np.linspace(first, last, number)]
    if "float" in kinds:
        return values
    if any(v != int(v) for v in values):
        raise UserError(f"{key} takes whole numbers; {start}:{stop}:{count} gives others")
    return [int(v) for v in values]


def _beside(out: Path, cell: dict[str, Any]) -> Path:
    """cat.png -> cat.guidance=3.strength=0.4.png"""
    parts = [f"{name}={value}" for name, value in cell.items()]
    safe = re.sub(r"[^\w=.+-]+", "-", ".".join(parts))[:150]
    return out.with_name(f"{out.stem}.{safe}.png")
