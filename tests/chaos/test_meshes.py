"""The same on every mesh: bit-equal on one mesh, equal up to the order of sums between meshes."""

import json
import sys

import numpy as np
import pytest

from .harness import ended, running

STEPS = 20


@pytest.fixture(scope="module")
def found(tmp_path_factory, cache):
    base = tmp_path_factory.mktemp("meshes")
    with running(base, cache=cache, devices=8) as run:
        ended(run.start(command=[sys.executable, "-m", "tests.chaos.meshes", str(base)]))
    return json.loads((base / "found.json").read_text())


def test_a_run_repeated_on_its_mesh_is_bit_equal(found):
    assert len(found["twice"]) == 6
    for mesh, (one, other) in found["twice"].items():
        assert one == other, mesh


def test_a_state_moves_between_meshes_without_losing_a_bit(found):
    assert len(found["moved"]) == 3
    for mesh, (digest, losses) in found["moved"].items():
        assert digest == found["saved"], mesh
        np.testing.assert_allclose(losses, found["losses"][3:], rtol=1e-5)


def test_the_program_of_shapes_is_the_program_of_arrays(found):
    assert found["programs"][0] == found["programs"][1]


def test_one_bad_number_on_one_device_is_skipped_on_all_alike(found):
    assert found["skipped"] == [2] * 8
    assert found["same on all devices"] and found["finite"]


def losses(run):
    import csv

    with (run.folder / "log.csv").open() as handle:
        return [float(row["loss"]) for row in csv.DictReader(handle)]


def test_two_processes_train_as_one_and_go_on_where_one_stopped(launch):
    """1 x 4 and 2 x 2 devices: losses agree over 20 steps; a checkpoint of one goes on in two."""
    import shutil

    order = dict(network="layer", settings=dict(steps=STEPS, save_every=10, keep_last=9))
    one = launch("one", devices=4, **order)
    ended(one.start())
    two = launch("two", devices=2, **order)
    for process in two.start_ranks(2):
        ended(process)
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)
    moved = launch("moved", devices=2, **order)
    shutil.copytree(one.checkpoints / "00000010", moved.checkpoints / "00000010")
    for process in moved.start_ranks(2):
        ended(process)
    np.testing.assert_allclose(losses(moved), losses(one)[10:], rtol=1e-5)
    assert moved.result()["digest"] != ""
    pod = launch("pod", devices=2, scattered=True, **order)
    for process in pod.start_ranks(2):
        ended(process)
    np.testing.assert_allclose(losses(pod), losses(one), rtol=1e-5)
