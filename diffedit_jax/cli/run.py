"""`diffedit edit` and `diffedit generate`: check everything, load, run in batches, write."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import api, images, solvers
from ..errors import UserError
from . import seen
from .adapters import files_of
from .attention import attention_path, checked_words, write_attention
from .batches import Batch, batches, checked_inputs, run_batch
from .jobs import Job, jobs_of
from .progress import Preview, Progress
from .sweep import checked_sweep, run_sweep, write_sweep
from .timing import Timing


def edit(options: argparse.Namespace) -> None:
    """Edits pictures; all inputs are read and all outputs tried before the model is loaded."""
    if options.sweep:
        _sweep(options)
        return
    jobs = checked_jobs(options)
    masked = _shows_mask(options, jobs)
    _check_targets(jobs, attention_path if options.show_attention else None, masked)
    sizes = [checked_inputs(job) for job in jobs]
    with Timing() as timing, Progress(options.quiet) as progress:
        progress.stage("loading the model")
        with timing.part("load"):
            model = load_model(options)
        tell = _Teller(progress)
        tell(model.notices)
        looked = options.show_attention
        words = checked_words(model, jobs, looked) if looked is not None else []
        parts = batches(jobs, sizes, model, options.batch)
        for number, batch in enumerate(parts, 1):
            several = f" {number}/{len(parts)}" if len(parts) > 1 else ""
            progress.stage(batch.jobs[0].method.name + several)
            with timing.part("run"), seen.recorded(model, batch):
                result = _run(model, batch, options, progress)
            tell(result.notices)
            with timing.part("write"):
                tell(_write(batch, result, masked))
            if words:
                progress.stage("reading attention")
                with timing.part("attention"):
                    write_attention(model, batch, result.images, words)
        progress.note(f"wrote {_where(jobs)} in {timing}")


generate = edit  # the options say which


def _sweep(options: argparse.Namespace) -> None:
    """One labelled sheet per job, every cell a variant of it."""
    if options.show_attention is not None:
        raise UserError("--show-attention goes with single results, not with --sweep")
    jobs, axes = checked_sweep(options)
    _check_targets(jobs)
    for job in jobs:
        checked_inputs(job)
    with Timing() as timing, Progress(options.quiet) as progress:
        progress.stage("loading the model")
        with timing.part("load"):
            model = load_model(options)
        tell = _Teller(progress)
        tell(model.notices)
        for job in jobs:
            progress.stage(f"sweeping {', '.join(axes)}")
            with timing.part("run"):
                found = run_sweep(model, job, axes, options, lambda d, n, _: progress.step(d, n))
            tell(found.notices)
            with timing.part("write"):
                tell(write_sweep(job, found, options.sweep_files))
        progress.note(f"wrote {_where(jobs)} in {timing}")


def checked_jobs(options: argparse.Namespace) -> list[Job]:
    """The jobs of the options, complete as far as can be told without the model."""
    if options.batch < 1:
        raise UserError(f"--batch should be at least 1, not {options.batch}")
    jobs = jobs_of(options)
    for job in jobs:
        job.method.complete({k: v for k, v in {**job.rest, **job.own}.items() if k != "size"})
        if job.rest.get("solver") is not None:
            solvers.named(job.rest["solver"])  # refuses an unknown one
    return jobs


def load_model(options: argparse.Namespace) -> Any:
    """The model that --model and the options beside it name."""
    names = ("dtype", "prediction_type", "variant", "config")
    chosen = {name: getattr(options, name, None) for name in names}
    chosen |= files_of(options)
    return api.load(options.model or "emoji", **{k: v for k, v in chosen.items() if v is not None})


def _run(model, batch: Batch, options, progress: Progress) -> api.Result:
    preview = None
    if options.preview is not None:
        preview = Preview(batch.jobs[0].out, options.preview)

    def watch(done: int, total: int, look) -> None:
        progress.step(done, total)
        if preview:
            preview(done, total, look)

    original = getattr(options, "original_size", False)
    return run_batch(model, batch, original_size=original, watch=watch)


def _shows_mask(options: argparse.Namespace, jobs: list[Job]) -> Callable | None:
    """Where the mask that a job finds goes; None if nobody asked."""
    if not getattr(options, "show_mask", False):
        return None
    for job in jobs:
        if "maps" not in job.method.parameters:
            raise UserError(f"--show-mask: {job.method.name} finds no mask; diffedit does")
    return lambda out: out.with_name(f"{out.stem}.mask.png")


def _write(batch: Batch, result: api.Result, masked: Callable | None) -> list[str]:
    notices = []
    for position, job in enumerate(batch.jobs):
        job.out.parent.mkdir(exist_ok=True)
        notices += images.write(job.out, result.images[position], result.recipe_of(position))
        if masked:
            images.write(masked(job.out), np.repeat(result.masks[position][..., None], 3, -1))
    return notices


def _check_targets(jobs: list[Job], *beside: Callable | None) -> None:
    """Tries every folder that will be written to, before anything is computed.

    beside: functions from a result's path to that of what is written beside it.
    """
    for job in jobs:
        folder = job.out.parent
        if folder.is_dir():
            for path in (job.out, *(place(job.out) for place in beside if place)):
                images.check_writable(path)
        elif not folder.parent.is_dir():
            raise UserError(f"cannot write {job.out}: the folder {folder.parent} does not exist")
        elif folder.exists():
            raise UserError(f"cannot write {job.out}: {folder} is not a folder")


def _where(jobs: list[Job]) -> str:
    if len(jobs) == 1:
        return str(jobs[0].out)
    folders = sorted({str(job.out.parent) for job in jobs})
    return f"{len(jobs)} pictures into {', '.join(folders[:3])}"


class _Teller:
    """Says every notice once."""

    def __init__(self, progress: Progress):
        self._progress, self._said = progress, set()

    def __call__(self, notices) -> None:
        for text in notices:
            if text not in self._said:
                self._said.add(text)
                self._progress.note(f"note: {text}")
