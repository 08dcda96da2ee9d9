"""Comparing a method with the baseline's curve, on curves that can be drawn by hand."""

import numpy as np
import pytest

from diffedit_jax.bench.verdict import gain, reachable

# Two strengths: nothing done and 40 dB kept; everything done and 20 dB kept.
ENDS = np.asarray([[0.0], [1.0]]), np.asarray([[40.0], [20.0]])


@pytest.mark.parametrize(("asked", "kept"), [(0.0, 40), (0.25, 35), (0.5, 30), (1.0, 20)])
def test_between_two_strengths_the_baseline_reaches_the_straight_line(asked, kept):
    assert reachable(*ENDS, np.asarray([asked]))[0] == pytest.approx(kept)


def test_a_dominated_strength_does_not_help():
    success, kept = np.asarray([[0.0], [0.5], [1.0]]), np.asarray([[40.0], [10.0], [20.0]])
    assert reachable(success, kept, np.asarray([0.5]))[0] == pytest.approx(30)


def test_beyond_the_curve_its_most_successful_strength_counts():
    success, kept = np.asarray([[0.2], [0.6]]), np.asarray([[40.0], [20.0]])
    assert reachable(success, kept, np.asarray([0.9]))[0] == pytest.approx(20)


def values(success, kept, count=64, spread=0.5):
    rng = np.random.default_rng(int(100 * success + kept))
    done = np.arange(count) < success * count
    return {"success": done.astype(float), "psnr_kept": kept + spread * rng.normal(size=count)}


CURVE = [values(0, 40), values(1, 20)]


@pytest.mark.parametrize(("kept", "verdict"), [(35, "better"), (25, "worse"), (20, "worse")])
def test_the_verdict_follows_the_side_of_the_curve(kept, verdict):
    found = gain(values(0.5, kept), CURVE)
    assert found["verdict"] == verdict
    assert found["low"] <= found["value"] <= found["high"]
    assert found["value"] == pytest.approx(kept - 30, abs=0.5)


def test_a_method_on_the_curve_is_not_told_apart():
    assert gain(values(0.5, 30, spread=3), CURVE)["verdict"] == "not told apart"


def test_doing_nothing_gains_nothing():
    found = gain(CURVE[0], CURVE)
    assert found["value"] == found["low"] == found["high"] == 0


def test_where_all_may_change_the_truth_stands_for_preservation():
    none = {"psnr_kept": np.full(64, np.nan)}
    curve = [{**v, "psnr_truth": v["psnr_kept"], **none} for v in CURVE]
    ours = {**values(0.5, 0), "psnr_truth": values(0.5, 35)["psnr_kept"], **none}
    found = gain(ours, curve)
    assert found["measure"] == "psnr_truth" and found["verdict"] == "better"
