"""kill -9 while a checkpoint is written: at most the save interval is lost, nothing is mixed."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from diffedit_jax.training.digests import read_manifest

from .harness import ROOT, ended, kill, until

EVERY = 2  # batches between saves
STEPS = 16
WIDTH = 1024  # a state of 16 MB: its save takes long enough to be hit
MANY = pytest.param(50, marks=pytest.mark.heavy)
ORDER = dict(network="layer", width=WIDTH, settings=dict(steps=STEPS, save_every=EVERY))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """What a run that nobody disturbs ends with."""
    from .harness import running

    with running(tmp_path_factory.mktemp("whole"), cache=cache, **ORDER) as run:
        ended(run.start())
        return run.result()


def saving(run):
    return list(run.checkpoints.glob(".saving-*"))


@pytest.mark.parametrize("kills", [4, MANY])
def test_a_run_killed_during_its_saves_ends_with_the_same_bits(launch, whole, kills):
    draw = random.Random(11)
    many = dict(steps=EVERY * (kills + 2)) if kills > 5 else {}
    run = launch(**{**ORDER, "settings": {**ORDER["settings"], **many}})
    for _ in range(kills):
        before = run.steps()
        process = run.start(pause=0.05)
        until(lambda: run.steps()[-1:] > before[-1:] and saving(run), process)  # noqa: B023
        time.sleep(draw.uniform(0, 0.15))  # anywhere between the first byte and the rename
        kill(process)
        check_after_a_kill(run)
    ended(run.start())
    assert not saving(run)  # what the killed left behind is gone
    if kills < 5:
        assert run.result() == whole


def check_after_a_kill(run):
    asked = run.asked()[-1][0]
    newest = run.steps()[-1]
    assert asked - newest <= 2 * EVERY  # one interval, and one save that was on its way
    for step in run.steps():
        assert read_manifest(run.checkpoints / f"{step:08d}")["step"] == step
    assert len(saving(run)) <= 1 and len(run.steps()) <= 3  # no more than one copy too many


ROLL = """
import pathlib, sys
import jax, jax.numpy as jnp
from diffedit_jax.training.checkpoint import Checkpoints
with Checkpoints(sys.argv[1], keep_last=1) as runs:
    found = runs.restore({"x": jnp.zeros(9), "step": jnp.int32(0)})
    step = found[1] if found else 0
    assert not found or int(found[0]["step"]) == step == int(found[0]["x"][0])
    print("ready", flush=True)
    while True:
        step += 1
        runs.save(step, {"x": jnp.full(9, float(step)), "step": jnp.int32(step)}, {})
        runs.wait()
        print(step, flush=True)
"""


def test_a_kill_while_old_steps_are_removed_leaves_whole_steps_only(tmp_path, launch):
    """Each life restores what the one before left, verified, and goes on from there."""
    draw, last = random.Random(3), 0
    environment = launch().environment()
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", ROLL, str(tmp_path / "roll")], cwd=ROOT,
                                   env=environment, stdout=subprocess.PIPE, text=True)  # fmt: skip
        try:
            assert process.stdout.readline() == "ready\n"
            for _ in range(3):
                last = int(process.stdout.readline())
            time.sleep(draw.uniform(0, 0.1))
        finally:
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
            process.wait()
            process.stdout.close()
        last = int(said[-1]) if said else last
        steps = sorted(int(p.name) for p in (tmp_path / "roll").glob("[0-9]*"))
        assert steps[-1] in (last, last + 1) and len(steps) <= 2


EXPORT = """
import pathlib, sys
import numpy as np
from diffedit_jax.checkpoints.write import whole_file, whole_folder, write_safetensors
place, weights = pathlib.Path(sys.argv[1]), {"a": np.full(300_000, 7, np.float32)}
print("ready", flush=True)
for number in range(10_000):
    with whole_file(place / "product.safetensors") as path:
        write_safetensors(path, weights)
    with whole_folder(place / f"folder{number}") as folder:
        for part in ("unet", "vae"):
            (folder / part).mkdir()
            write_safetensors(folder / part / "model.safetensors", weights)
"""


def test_a_kill_during_an_export_leaves_whole_products_only(tmp_path):
    from diffedit_jax.checkpoints.read import read

    draw, seen = random.Random(5), 0
    for life in range(4):
        place = tmp_path / str(life)
        place.mkdir()
        process = subprocess.Popen([sys.executable, "-c", EXPORT, str(place)], cwd=ROOT,
                                   stdout=subprocess.PIPE, env={**os.environ})  # fmt: skip
        assert process.stdout.readline() == b"ready\n"
        time.sleep(draw.uniform(0.05, 0.3))
        kill(process)
        process.stdout.close()
        products = [*place.glob("product.safetensors"), *place.glob("folder*/*/*")]
        for path in products:
            assert (read(path)["a"] == 7).all()
        for folder in place.glob("folder*"):
            assert sorted(p.name for p in folder.iterdir()) == ["unet", "vae"]
        seen += len(products)
    assert seen > 0
