"""Intervals and PSNR: closed forms and published examples."""

import numpy as np
import pytest

from diffedit_jax.bench.statistics import mean, psnr, rate, wilson


def test_wilson_intervals():
    low, high = wilson(29, 32)
    assert (round(low, 2), round(high, 2)) == (0.76, 0.97)
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-12)
    assert wilson(10, 10)[1] == pytest.approx(1, abs=1e-12)
    # The ends solve |p - hits/n| = z sqrt(p (1 - p) / n).
    for hits, count in ((3, 20), (190, 256)):
        for end in wilson(hits, count):
            gap = abs(end - hits / count)
            assert gap == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / count), rel=1e-6)


def test_rates_and_means_hold_their_counts():
    assert rate([True, True, False, True])["value"] == 0.75
    found = mean(np.arange(100.0))
    assert found["value"] == 49.5 and found["n"] == 100
    assert found["low"] == pytest.approx(49.5 - 1.96 * 2.89, abs=0.7)
    assert found["high"] == pytest.approx(49.5 + 1.96 * 2.89, abs=0.7)


def test_psnr():
    black = np.zeros((2, 8, 8, 3), np.uint8)
    found = psnr(np.stack([black[0], black[1] + 51]), black)
    assert found[0] == 99.0
    assert found[1] == pytest.approx(20 * np.log10(5))
    where = np.zeros((2, 8, 8), bool)
    where[:, :4] = True
    half = black.copy()
    half[:, 4:] = 255
    assert (psnr(half, black, where) == 99).all() and (psnr(half, black, ~where) == 0).all()
