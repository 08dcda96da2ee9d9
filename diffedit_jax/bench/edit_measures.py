"""What is measured of edited pictures: asked and kept attributes, distance to the truth.

An attribute that differs between the source and the target scene was asked for; one that is the
same in both was to be kept. Both are read off the picture by the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffedit_jax.bench import judge
from diffedit_jax.bench.statistics import mean, psnr, rate
from diffedit_jax.metrics import ssim
from diffedit_jax.scenes import Edit

RATES = {
    "success": "the judge finds every attribute that was asked for",
    "kept": "the judge finds every attribute that was to stay",
}
MEANS = {
    "psnr_truth": "PSNR to the true picture, dB",
    "lpips_truth": "LPIPS to the true picture",
    "psnr_kept": "PSNR of the pixels that must not change, dB",
    "ssim_kept": "SSIM to the source, over the pixels that must not change",
}
Values = dict[str, np.ndarray]


def measured(params: Any, pictures: np.ndarray, edits: Sequence[Edit], lpips=None) -> Values:
    """Per picture, each [n]: NaN where an edit leaves nothing to measure.

    Args:
      params: weights of the judge.
      pictures: edited, uint8 [n, 64, 64, 3].
      lpips: (found, wanted), both [n, h, w, 3] in [0, 1] -> [n]; without it the entry is missing.
    """
    source = np.stack([edit.source_image for edit in edits])
    truth = np.stack([edit.target_image for edit in edits])
    outside = np.stack([~edit.mask for edit in edits])
    nothing = ~outside.any((1, 2))
    found = {
        **_read(params, pictures, edits),
        "psnr_truth": psnr(pictures, truth),
        "psnr_kept": np.where(nothing, np.nan, psnr(pictures, source, outside)),
        "ssim_kept": np.where(nothing, np.nan, np.asarray(ssim(pictures, source, outside))),
    }
    if lpips is not None:
        found["lpips_truth"] = np.asarray(lpips(_unit(pictures), _unit(truth)))
    return found


def _read(params, pictures, edits) -> Values:
    right = judge.right(params, pictures, [edit.target for edit in edits])
    asked, kept = np.ones(len(edits), bool), np.ones(len(edits), bool)
    changes = [changed(edit) for edit in edits]
    for name, values in right.items():
        wanted = np.asarray([name in each for each in changes])
        asked &= values | ~wanted
        kept &= values | wanted
    some = np.asarray([len(each) > 0 for each in changes])
    return {"success": np.where(some, asked, np.nan), "kept": kept.astype(float)}


def changed(edit: Edit) -> set[str]:
    """Names of the judge's attributes that the edit asks for."""
    before, after = judge.answers(edit.source), judge.answers(edit.target)
    return {name for name in before if before[name] != after[name]}


def _unit(pictures: np.ndarray) -> np.ndarray:
    return pictures.astype(np.float32) / 255


def summary(values: Values) -> dict[str, dict]:
    """Each value with its 95 % interval, {"value", "low", "high", "n"}; NaNs are left out."""
    found = {}
    for name, each in values.items():
        there = each[~np.isnan(each)]
        if len(there):
            found[name] = rate(there > 0.5) if name in RATES else mean(there)
    return found


def optional_lpips() -> tuple[Callable | None, str]:
    """(LPIPS, "") where its weights are on this machine, else (None, why not)."""
    from diffedit_jax.errors import UserError

    try:
        from diffedit_jax.metrics import lpips
    except ImportError as error:
        return None, str(error)
    try:
        lpips(np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 64, 64, 3), np.float32))
    except UserError as error:
        return None, str(error)
    return lpips, ""
