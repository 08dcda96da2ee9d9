"""A flipped bit, a cut or a missing file anywhere in a checkpoint is found, and the file named."""

import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.training import digests
from diffedit_jax.training.checkpoint import Checkpoints, Damaged, shapes_of

FLIPS = pytest.param(200, marks=pytest.mark.heavy)


def state(step):
    keys = jax.random.split(jax.random.PRNGKey(step), 3)
    return {
        "random": jax.random.normal(keys[0], (64, 33)),
        "plain": jnp.zeros((40, 40)) + step,
        "half": jax.random.normal(keys[1], (17,), jnp.bfloat16),
        "count": jnp.int32(step),
    }


def equal(one, other):
    return all(
        (np.asarray(a) == np.asarray(b)).all()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder, keep_last=2) as runs:
        for step in (10, 20):
            runs.save(step, state(step), {"data": {"step": step}})
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock"))


def restored(folder, **options):
    with Checkpoints(folder, **options) as runs:
        return runs.restore(shapes_of(state(0)))


def newest(folder):
    return sorted(p for p in (folder / "00000020").rglob("*") if p.is_file())


def flip(path, place):
    body = bytearray(path.read_bytes())
    body[place // 8] ^= 1 << place % 8
    path.write_bytes(body)


def test_what_is_not_damaged_comes_back(copy):
    found, step, extra = restored(copy)
    assert step == 20 and extra == {"data": {"step": 20}} and equal(found, state(20))


@pytest.mark.parametrize("flips", [25, FLIPS])
def test_no_flipped_bit_goes_unseen(copy, flips):
    draw = random.Random(7)
    files = newest(copy)
    for number in range(flips):
        path = files[number % len(files)]
        place = draw.randrange(8 * path.stat().st_size)
        flip(path, place)
        with pytest.raises(Damaged) as told:
            restored(copy)
        flip(path, place)
        named_another = path.name == digests.MANIFEST
        assert str(path) in str(told.value) or named_another, (path, place, told.value)
    assert equal(restored(copy)[0], state(20))


@pytest.mark.parametrize("harm", ["cut", "grown", "emptied", "gone"])
def test_no_change_of_size_goes_unseen(copy, harm):
    for path in newest(copy):
        body = path.read_bytes()
        changed = {"cut": body[:-1], "grown": body + b"\0", "emptied": b""}.get(harm)
        path.unlink() if changed is None else path.write_bytes(changed)
        with pytest.raises(Damaged, match=path.name):
            restored(copy)
        path.write_bytes(body)
    assert equal(restored(copy)[0], state(20))


def test_the_refusal_says_how_to_go_on_and_fallback_goes_back(copy):
    flip(newest(copy)[-1], 77)
    with pytest.raises(Damaged, match="fallback=True the run goes back to step 10"):
        restored(copy)
    with pytest.warns(UserWarning, match="going back to an older step"):
        found, step, extra = restored(copy, fallback=True)
    assert step == 10 and extra == {"data": {"step": 10}} and equal(found, state(10))
    assert (copy / "damaged-20").is_dir()  # for whoever wants to look
    with Checkpoints(copy) as runs:  # the step can be saved anew
        runs.save(20, state(20), {})
        runs.wait()
        assert equal(runs.restore(shapes_of(state(0)))[0], state(20))


def test_when_no_step_is_good_fallback_refuses_too_and_does_not_start_anew(copy):
    for step in ("00000010", "00000020"):
        flip(copy / step / "extra.json", 3)
    with pytest.raises(Damaged, match="no older step is good"), pytest.warns(UserWarning):
        restored(copy, fallback=True)


def test_what_a_lost_process_left_behind_is_removed_and_never_read(copy):
    for name in (".saving-30", ".removing-5"):
        shutil.copytree(copy / "00000020", copy / name)
    assert restored(copy)[1] == 20
    assert not list(copy.glob(".saving-*")) and not list(copy.glob(".removing-*"))


def test_other_arrays_are_refused_by_name(copy):
    other = {**state(0), "count": jnp.float32(0), "more": jnp.zeros(3)}
    with Checkpoints(copy) as runs, pytest.raises(UserError) as told:
        runs.restore(shapes_of(other))
    assert "count is int32[] there and float32[] here" in str(told.value)
    assert "more is absent there and float32[3] here" in str(told.value)


def test_the_newest_and_the_best_stay(tmp_path):
    with Checkpoints(tmp_path, keep_last=1, keep_best=2, mode="max") as runs:
        for step, score in enumerate([0.1, 0.9, 0.3, 0.8, None, 0.2], 1):
            runs.save(step, {"x": jnp.ones(3)}, {}, score=score)
        runs.wait()
        assert runs.steps() == [2, 4, 6]


def test_a_step_that_is_there_is_not_written_twice(tmp_path):
    with Checkpoints(tmp_path) as runs:
        runs.save(1, {"x": jnp.ones(3)}, {})
        runs.save(1, {"x": jnp.zeros(3)}, {})
        assert float(runs.restore({"x": jnp.zeros(3)})[0]["x"].sum()) == 3
