"""What the tasks of one model and one objective have in common."""

from __future__ import annotations

from functools import partial
from typing import Any

from .. import objectives


def frozen(model: Any) -> dict:
    """The networks that take part in training: {"unet", "text_encoder"}."""
    return {"unet": model.denoiser.params, "text_encoder": model.texts[0].params}


def objective_of(model: Any, config: Any) -> Any:
    """The denoising objective of a model, in its own kind and schedule.

    config: focus (share of `stratified_times` at middle noise; -1: independent uniform times),
    min_snr, offset.
    """
    times = objectives.uniform_times
    if config.focus >= 0:
        times = partial(objectives.stratified_times, focus=config.focus)
    return objectives.denoising(
        model.denoiser.module, kind=model.denoiser.kind, schedule=model.schedule, times=times,
        min_snr=config.min_snr, offset=config.offset,
    )  # fmt: skip


def learned(state: Any) -> Any:
    """What a run has learned: the average if it keeps one."""
    return state.trained if state.average is None else state.average
