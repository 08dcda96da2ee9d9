"""The data's cursor: any cut, any number of restarts and processes, the same stream."""

import json

import numpy as np
import pytest

from diffedit_jax.training.data import WHOLE, Share, Stepped
from diffedit_jax.training.folders import Folder

FILES, BATCH = 13, 4


def example(path, rng):
    """Which file it is, and what the position alone decides."""
    return {"file": np.int32(path), "draw": np.float32(rng.random())}


def folder(share=WHOLE, **options):
    return Folder(list(range(FILES)), example, batch=BATCH, seed=3, share=share, **options)


def stepped(share=WHOLE):
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


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("after", [((0,), (1,)), ((0, 3), (1, 2)), ((0,), (1,), (2,), (3,))])
def test_processes_share_the_stream_of_one_before_and_after_a_restart(before, after):
    """As many processes or others, whose parts follow each other or, as on a pod, do not."""
    whole, ways = stream(folder(), 8), max(sum(after, ())) + 1
    old = [folder(Share((i,), before)) for i in range(before)]
    first = [stream(part, 4) for part in old]
    cursor = json.dumps(old[-1].state())
    again = [folder(Share(parts, ways)) for parts in after]
    for part in again:
        part.restore(json.loads(cursor))
    second = [stream(part, 4) for part in again]
    size = BATCH // ways
    places = [p * size + k for parts in after for p in parts for k in range(size)]
    for step in range(8):
        rows = [part[step % 4] for part in (first if step < 4 else second)]
        for name in ("file", "draw"):
            wanted = whole[step][name]
            found = sum((row[name] for row in rows), [])
            assert found == (wanted if step < 4 else [wanted[k] for k in places])
