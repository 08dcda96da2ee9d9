"""What a run says of itself."""

import csv

import jax
import numpy as np
import pytest

from diffedit_jax.images import read
from diffedit_jax.training import peak, step
from diffedit_jax.training.report import Meter, Report

from . import tiny


class Clock:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


def meter(**changes):
    plain = dict(total=9, examples=lambda: 24, devices=3, flops=lambda: 6e12, peak=2e12)
    return Meter(**{**plain, **changes})


def test_speed_and_utilisation_follow_from_the_clock(monkeypatch):
    clock, found = Clock(monkeypatch), meter()
    found.tick(1)  # compiled until now: not counted
    assert set(found.read().values()) == {None}
    clock.now += 8
    found.tick(3)
    assert found.read() == {"step_time": 4.0, "images_per_second": 2.0, "mfu": 0.25}
    clock.now += 1
    found.tick(4)
    assert found.read()["step_time"] == 1.0


def test_nothing_is_counted_where_the_peak_is_unknown():
    found = meter(peak=None, flops=lambda: pytest.fail("counted"))
    found.tick(1)
    found.tick(2)
    assert found.read()["mfu"] is None


def test_peaks_go_by_the_longest_name():
    class Device:
        def __init__(self, kind):
            self.device_kind = kind

    assert peak.peak_of(Device("TPU v5 lite")) == 197e12
    assert peak.peak_of(Device("TPU v5p")) == 459e12
    assert peak.peak_of(Device("TPU v3")) == 61.5e12  # half a chip
    assert peak.peak_of(Device("NVIDIA H100 80GB HBM3")) == 989e12
    assert peak.peak_of(jax.devices("cpu")[0]) is None


def test_flops_of_a_step_are_those_of_its_products():
    config, params, batch = tiny.config(), tiny.parameters(), tiny.batch(0)
    loss = step.total_loss(tiny.task(), config)
    # forward [8, 4] @ [4, 5] and [8, 5] @ [5]; backward: both operands of the second product, and
    # of the first the weights alone, since nobody asks for the gradient of the batch.
    wanted = 2 * 8 * 4 * 5 * 2 + 2 * 8 * 5 * 3
    assert peak.step_flops(loss, params, {}, batch) == wanted


def metrics(**more):
    return {"loss": np.float32(0.5), "streak": np.int32(0), **more}


def test_a_table_keeps_the_columns_that_it_began_with(tmp_path):
    for more in ({"a": 1.0}, {"b": 2.0}):
        report = Report(tmp_path, every=1, patience=3, meter=meter())
        report.take(1, metrics(**more))
        report.flush()
        report.close()
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["a"] for row in rows] == ["1.0", ""] and "b" not in rows[0]


def test_a_score_is_the_mean_loss_since_the_last(tmp_path):
    report = Report(tmp_path, every=9, patience=3, meter=meter())
    for loss in (1.0, 2.0, float("nan")):
        report.take(1, metrics(loss=np.float32(loss)))
    report.flush()
    assert report.score() == 1.5 and report.score() is None


def test_pictures_and_boards_are_written(tmp_path):
    pytest.importorskip("tensorboardX")
    report = Report(tmp_path, every=1, patience=3, meter=meter())
    pair = np.stack([np.full((4, 5, 3), value, np.uint8) for value in (10, 200)])
    report.show(7, {"cat": pair})
    report.take(7, metrics())
    report.flush()
    report.close()
    beside = read(tmp_path / "pictures" / "cat-000007.png").pixels
    assert beside.shape == (4, 10, 3) and beside[0, 0, 0] == 10 and beside[0, 9, 0] == 200
    [board] = (tmp_path / "tensorboard").iterdir()
    assert b"cat" in board.read_bytes() and b"loss" in board.read_bytes()
