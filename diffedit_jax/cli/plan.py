"""`diffedit plan`: what an edit will cost, told without running it."""

from __future__ import annotations

import argparse
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import cost
from ..core import Cond, first
from . import seen
from .batches import Batch, batches, checked_inputs
from .run import checked_jobs, load_model


def plan(options: argparse.Namespace) -> None:
    """Prints network evaluations, operations, memory, and whether programs are compiled anew."""
    jobs = checked_jobs(options)
    sizes = [checked_inputs(job) for job in jobs]
    model = load_model(options)
    for batch in batches(jobs, sizes, model, options.batch):
        job = batch.jobs[0]
        job.method.check_model(model)
        for name, text in _facts(model, batch):
            print(f"{name:<12} {text}")
        print()


def _facts(model: Any, batch: Batch) -> list[tuple[str, str]]:
    method = batch.jobs[0].method
    parameters = method.complete(_arguments(model, batch))
    calls, rows = method.evaluations(parameters)
    height, width = batch.canvas or (
        parameters.get("height") or model.size,
        parameters.get("width") or model.size,
    )
    operations, peak = _evaluation(model, rows * batch.length, height, width)
    compiled = seen.is_compiled(model, batch)
    params = _sizes(model.denoiser.params)
    return [
        ("method", f"{method.name}: {method.paper}"),
        ("pictures", f"{len(batch.jobs)} at {width}x{height}, {batch.length} at a time"),
        ("evaluations", f"{calls} of the network, each with {rows} rows per picture"),
        (
            "operations",
            f"{_short(operations)}FLOP an evaluation, {_short(operations * calls)}FLOP "
            "in all (matrix products and convolutions of the denoiser)",
        ),  # fmt: skip
        (
            "memory",
            f"{_short(_sizes(model))}B of parameters ({_short(params)}B of the denoiser), "
            f"at most {_short(peak)}B of activations",
        ),  # fmt: skip
        ("compiles", "no, the programs are in the cache" if compiled else "yes, the first time"),
        ("device", f"{jax.device_count()} x {jax.devices()[0].device_kind}"),
    ]


def _arguments(model: Any, batch: Batch) -> dict:
    job = batch.jobs[0]
    own = {k: v for k, v in model.defaults.items() if k in job.method.parameters}
    given = {**own, **job.rest, **job.own}
    return {k: v for k, v in given.items() if k in job.method.parameters}


def _evaluation(model: Any, rows: int, height: int, width: int) -> tuple[int, int]:
    """(operations, bytes of activations) of one call of the denoiser, traced on shapes alone."""
    denoiser = jax.tree.map(_shape, model.denoiser)
    y, x, channels = model.latent_shape(height, width)
    latent = jax.ShapeDtypeStruct((rows, y, x, channels), jnp.float32)
    one = jax.eval_shape(model.null)
    cond = jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype), one)
    extra = model.in_channels - channels
    if extra:
        cond = cond.replace(channels=jax.ShapeDtypeStruct((rows, y, x, extra), jnp.float32))
    step = first(_table(model))

    def ask(denoiser, latent, cond: Cond):
        return denoiser(latent, step, cond).eps

    arguments = (denoiser, latent, cond)
    return cost.flops(ask, *arguments), cost.peak_bytes(ask, *arguments)


def _table(model: Any):
    from ..solvers import DDIM

    return DDIM().steps(model.schedule, 1)


def _shape(array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(array), array.dtype)


def _sizes(tree: Any) -> int:
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def _short(number: float) -> str:
    for unit in ("", "k", "M", "G", "T", "P"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} E"
