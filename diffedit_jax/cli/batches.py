"""Which jobs share a compiled program, and how they are run as one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from .. import api, images
from ..checkpoints.style_file import read_style
from .jobs import Job


@dataclasses.dataclass(frozen=True)
class Batch:
    """Jobs that run together.

    Attributes:
      jobs: what is wanted.
      length: how many pictures the program takes; the last job fills up the rest, so that the
        last batch of many needs no program of its own.
      canvas: (height, width) of what the model sees; None where the method decides.
    """

    jobs: tuple[Job, ...]
    length: int
    canvas: tuple[int, int] | None


def checked_inputs(job: Job) -> tuple[int, int] | None:
    """(height, width) of the job's picture; refuses unreadable pictures and unfit masks."""
    for name, path in job.own.items():
        if name == "example":
            images.read_example(path)
        if name == "style":
            read_style(path)
    if job.image is None:
        return None
    size = images.read(job.image).pixels.shape[:2]
    if "mask" in job.own:
        images.read_mask(job.own["mask"], size)
    return size


def batches(jobs: list[Job], sizes: list, model: Any, most: int) -> list[Batch]:
    """Groups jobs of one method, one set of parameters and one canvas, at most `most` at a time.

    Pictures, texts and seeds may differ. A picture comes out the same whatever else is in its
    batch, because it keeps its own canvas and its own noise.
    """
    groups: dict[Any, list[Job]] = {}
    for job, size in zip(jobs, sizes, strict=True):
        key = (job.method.name, repr(sorted(job.rest.items())), tuple(sorted(job.own)))
        groups.setdefault((*key, canvas_of(job, size, model)), []).append(job)
    return [b for (*_, canvas), group in groups.items() for b in _split(group, canvas, most)]


def canvas_of(job: Job, size: tuple[int, int] | None, model: Any) -> tuple[int, int] | None:
    """(height, width) of what the model sees of a job's picture."""
    if size is None:
        return None
    longest = job.rest.get("size") or model.size
    return images.Frame.fit(size, longest, model.size // 8, job.method.cuts(job.rest)).canvas


def run_batch(model: Any, batch: Batch, *, original_size: bool, watch) -> api.Result:
    """Runs a batch; picture i of the result is job i's, and what fills it up comes last."""
    jobs = [*batch.jobs, *[batch.jobs[-1]] * (batch.length - len(batch.jobs))]
    own = {name: [job.own[name] for job in jobs] for name in jobs[0].own}
    arguments = {**own, **jobs[0].rest, "seed": [job.seed for job in jobs], "watch": watch}
    method = jobs[0].method
    if method.start == "noise":
        return api.generate(model, **arguments)
    paths = None if jobs[0].image is None else [job.image for job in jobs]
    return api.edit(model, paths, method.name, original_size=original_size, **arguments)


def _split(group: list[Job], canvas, most: int) -> Iterator[Batch]:
    length = min(len(group), most)
    for start in range(0, len(group), most):
        yield Batch(tuple(group[start : start + most]), length, canvas)
