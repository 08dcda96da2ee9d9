"""Whether a method preserves more than plain SDEdit does at the same success.

SDEdit's strength trades success for preservation. Mixing two strengths at random reaches, on
average, every point of the segment between them, so the reachable preservation at a success s is
P(s) = max over mixtures of strengths with success >= s, and a method gains P_method - P(s_method).
Where no strength reaches s, the one with the highest success stands for the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from diffedit_jax.bench.edit_measures import Values

DRAWS = 2000


def preservation(values: Values) -> str:
    """What stands for preservation: the untouchable pixels, or the truth where all may change."""
    return "psnr_truth" if np.isnan(values["psnr_kept"]).all() else "psnr_kept"


def reachable(
    success: Float[np.ndarray, "points draws"],
    kept: Float[np.ndarray, "points draws"],
    asked: Float[np.ndarray, " draws"],
) -> Float[np.ndarray, " draws"]:
    """The most that mixtures of the points keep at a success of at least `asked`, per draw."""
    every = np.arange(success.shape[1])
    best = kept[success.argmax(0), every]
    best = np.maximum(best, np.where(success >= asked, kept, -np.inf).max(0))
    for low in range(len(success)):
        for high in range(len(success)):
            between = (success[low] < asked) & (asked < success[high])
            span = np.where(between, success[high] - success[low], 1.0)
            share = (asked - success[low]) / span
            mixed = kept[low] + share * (kept[high] - kept[low])
            best = np.where(between, np.maximum(best, mixed), best)
    return best


def gain(method: Values, curve: Sequence[Values], draws: int = DRAWS) -> dict:
    """{"value", "low", "high", "measure", "verdict"} of a method over the baseline's curve, in dB.

    Everybody was given the same edits, so the bootstrap draws edits and keeps them paired. The
    verdict: "better" or "worse" where the 95 % interval excludes 0, else "not told apart".
    """
    measure = preservation(method)
    everybody = [method, *curve]
    success = np.stack([each["success"] for each in everybody])
    kept = np.stack([each[measure] for each in everybody])
    count = success.shape[1]
    drawn = np.random.default_rng(0).integers(0, count, (draws, count))
    chosen = np.concatenate([np.arange(count)[None], drawn])  # the sample itself comes first
    success, kept = (values[:, chosen].mean(-1) for values in (success, kept))
    gains = kept[0] - reachable(success[1:], kept[1:], success[0])
    low, high = np.percentile(gains[1:], (2.5, 97.5))
    verdict = "better" if low > 0 else "worse" if high < 0 else "not told apart"
    value, low, high = (round(float(x), 3) for x in (gains[0], low, high))
    beyond = bool(success[0, 0] > success[1:, 0].max())
    return {"value": value, "low": low, "high": high, "measure": measure, "verdict": verdict,
            "more success than any strength": beyond}  # fmt: skip
