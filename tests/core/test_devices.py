"""Eight devices are one device, and say nothing to each other."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reports():
    """[{name, devices, shard, error, pmap, collectives}] from a process with eight fake devices."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.core.devices_script"],
        cwd=ROOT, env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_data_parallel_sampling_needs_no_collective(reports):
    for report in reports:
        assert report["devices"] == 8
        assert report["shard"] == [1, 4, 4, 3]
        assert report["collectives"] == []


def test_eight_devices_give_what_one_gives(reports):
    for report in reports:
        assert report["error"] < 1e-5, report


def test_the_sampler_runs_under_pmap(reports):
    for report in reports:
        assert report["pmap"] < 1e-5, report
