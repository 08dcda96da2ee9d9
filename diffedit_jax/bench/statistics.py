"""Intervals for measured rates and means."""

from collections.abc import Sequence

import numpy as np

Z = 1.959964  # of a two-sided 95 % interval


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a rate: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).

    Source: Wilson 1927. Example: wilson(29, 32) is about (0.76, 0.97).
    """
    rate, scale = hits / count, 1 + Z**2 / count
    middle = (rate + Z**2 / (2 * count)) / scale
    reach = Z / scale * np.sqrt(rate * (1 - rate) / count + Z**2 / (4 * count**2))
    return float(middle - reach), float(middle + reach)


def rate(hits: Sequence[bool]) -> dict:
    """A share of yes answers with its 95 % interval: {"value", "low", "high", "n"}."""
    hits = np.asarray(hits, bool)
    low, high = (min(max(end, 0.0), 1.0) for end in wilson(int(hits.sum()), len(hits)))
    return {"value": round(float(hits.mean()), 4), "low": round(low, 4), "high": round(high, 4),
            "n": len(hits)}  # fmt: skip


def mean(values: Sequence[float], draws: int = 2000) -> dict:
    """A mean with its 95 % percentile bootstrap interval (seeded)."""
    values = np.asarray(values, np.float64)
    chosen = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values[chosen].mean(1), (2.5, 97.5))
    return {"value": round(float(values.mean()), 3), "low": round(float(low), 3),
            "high": round(float(high), 3), "n": len(values)}  # fmt: skip


def psnr(found: np.ndarray, wanted: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """10 log10(255^2 / mean d^2) in dB per picture, uint8 [n, h, w, 3]; `where` [n, h, w] bool.

    Identical pictures give 99.
    """
    square = np.square(found.astype(np.float64) - wanted).mean(-1)
    weight = np.ones(square.shape) if where is None else where.astype(np.float64)
    error = (square * weight).sum((1, 2)) / np.maximum(weight.sum((1, 2)), 1)
    return np.minimum(10 * np.log10(255**2 / np.maximum(error, 1e-12)), 99.0)
