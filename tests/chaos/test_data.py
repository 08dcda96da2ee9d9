"""The data's cursor: any cut, any number of restarts and processes, the same stream."""

import json

import numpy as np
import pytest

from diffedit_jax.training.data import Stepped
from diffedit_jax.training.folders import Folder

FILES, BATCH = 13, 4


def example(path, rng):
    """Which file it is, and what the position alone decides."""
    return {"file": np.int32(path), "draw": np.float32(rng.random())}


def folder(share=(0, 1), **options):
    return Folder(list(range(FILES)), example, batch=BATCH, seed=3, share=share, **options)


def stepped(share=(0, 1)):
    def make(step):
        return {"file": np.arange(step * BATCH, (step + 1) * BATCH)}

    return Stepped(make, share)


def stream(data, count):
    return [{k: v.tolist() for k, v in data.next().items()} for _ in range(count)]


@pytest.mark.parametrize("make", [folder, stepped])
def test_the_rest_of_the_stream_is_the_same_from_every_cut(make):
    data, wanted, cursors = make(), [], []
    for _ in range(10):
        cursors.append(json.dumps(data.state()))  # as a checkpoint keeps it
        wanted += stream(data, 1)
    for cut, cursor in enumerate(cursors):
        again = make()
        again.restore(json.loads(cursor))
        assert stream(again, 10 - cut) == wanted[cut:]
        assert json.dumps(again.state()) == json.dumps(data.state())


def test_a_restart_may_come_after_batches_were_read_ahead():
    data = folder(threads=8)
    stream(data, 3)
    cursor = data.state()
    wanted = stream(data, 3)
    data.restore(cursor)  # the same object, whose threads are far ahead
    assert stream(data, 3) == wanted


def test_every_file_comes_once_per_epoch_over_any_number_of_restarts():
    data, seen = folder(), []
    for _ in range(13):  # 52 positions: four epochs of 13 files
        fresh = folder()
        fresh.restore(json.loads(json.dumps(data.state())))
        data = fresh
        seen += stream(data, 1)[0]["file"]
    for epoch in range(4):
        assert sorted(seen[epoch * FILES : (epoch + 1) * FILES]) == list(range(FILES))
    assert seen[:FILES] != seen[FILES : 2 * FILES]


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_stream_of_one_before_and_after_a_restart(count):
    whole = stream(folder(), 8)
    parts = [folder((i, count)) for i in range(count)]
    first = [stream(part, 4) for part in parts]
    again = [folder((i, count)) for i in range(count)]
    for part, old in zip(again, parts, strict=True):
        part.restore(json.loads(json.dumps(old.state())))
    second = [stream(part, 4) for part in again]
    for step in range(8):
        rows = [(first if step < 4 else second)[i][step % 4] for i in range(count)]
        for name in ("file", "draw"):
            assert sum((row[name] for row in rows), []) == whole[step][name]
