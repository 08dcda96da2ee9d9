"""The seven metrics of PIE-Bench of one edited picture (the source's own CLIP score beside them).

What its released script computes, quirks included: the background metrics are means over the
whole masked picture, not over the mask; LPIPS sees masked pixels as black; the structure distance
is given pictures in 0 to 255.
Source: cure-lab/PnPInversion 07f97f4 evaluation/evaluate.py, evaluation/matrics_calculator.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from diffedit_jax import metrics
from diffedit_jax.bench.pie_bench import Task

STRUCTURE = "structure_distance"
COLUMNS = (
    STRUCTURE,
    "psnr_unedit_part",
    "lpips_unedit_part",
    "mse_unedit_part",
    "ssim_unedit_part",
    "clip_similarity_source_image",
    "clip_similarity_target_image",
    "clip_similarity_target_image_edit_part",
)
FACTORS = {STRUCTURE: 1e3, "lpips_unedit_part": 1e3, "mse_unedit_part": 1e4,
           "ssim_unedit_part": 1e2}  # fmt: skip
Picture = UInt8[np.ndarray, "h w 3"]


class Scores:
    """Computes the columns whose weights are there.

    Args:
      lpips: (a, b) in [0, 1] -> distance; None leaves the column out.
      clip: (picture uint8, text) -> 100 cos; None leaves three columns out.
      structure: (source, result), uint8 -> distance; None leaves the column out.
      lpips_net: empty for the benchmark's own network; another one names its column.
    """

    def __init__(self, *, lpips: Callable | None = None, clip: Callable | None = None,
                 structure: Callable | None = None, lpips_net: str = ""):  # fmt: skip
        self._lpips, self._clip, self._structure = lpips, clip, structure
        self._column = lpips_column(lpips_net)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of COLUMNS that are computed."""
        needs = {"structure": self._structure, "lpips": self._lpips, "clip": self._clip}
        there = [c for c in COLUMNS if needs.get(c.split("_")[0], True) is not None]
        return tuple(self._column if c == lpips_column("") else c for c in there)

    def __call__(self, task: Task, source: Picture, result: Picture) -> dict[str, float]:
        """{column: value}, NaN where the mask leaves nothing to measure."""
        edited = task.edited
        found: dict[str, Any] = background(source, result, edited)
        if self._lpips is not None:
            keep = _unit(~edited)[..., None]
            found[self._column] = self._lpips(_unit(source, 255) * keep,
                                                     _unit(result, 255) * keep)  # fmt: skip
        if edited.all():
            found = {name: np.nan for name in found}
        if self._structure is not None:
            found[STRUCTURE] = self._structure(source, result)
        if self._clip is not None:
            part = result * edited[..., None]
            found["clip_similarity_source_image"] = self._clip(source, task.source)
            found["clip_similarity_target_image"] = self._clip(result, task.prompt)
            found[COLUMNS[-1]] = self._clip(part, task.prompt)
        return {name: float(found[name]) for name in self.columns}


def lpips_column(net: str) -> str:
    """The column's name; LPIPS of another network than the benchmark's says so."""
    return f"lpips_{net}_unedit_part" if net else "lpips_unedit_part"


def factor(column: str) -> float:
    """What the published table multiplies a column by."""
    return FACTORS["lpips_unedit_part"] if column.startswith("lpips") else FACTORS.get(column, 1.0)


def background(source: Picture, result: Picture, edited: Bool[np.ndarray, "h w"]) -> dict:
    """PSNR, MSE and SSIM of the two pictures multiplied by (1 - mask), means over everything.

    SSIM leaves out the border, as torchmetrics did when the benchmark's table was made.
    """
    keep = ~edited
    return {
        "psnr_unedit_part": metrics.psnr(result, source, keep, over="picture"),
        "mse_unedit_part": metrics.mse(result, source, keep, over="picture"),
        "ssim_unedit_part": metrics.ssim(result, source, keep, over="picture", border="crop"),
    }


def _unit(values: np.ndarray, scale: float = 1) -> np.ndarray:
    return values.astype(np.float32) / scale
