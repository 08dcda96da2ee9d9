"""Running and resuming: a resumed run is bit-equal to an uninterrupted one."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.errors import NotFiniteError, UserError
from diffedit_jax.training import digests, disk, loop, products, weights
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.digests import of_folder

from . import tiny


def run(folder, steps, **changes):
    options = {k: changes.pop(k) for k in ("watch", "quiet") if k in changes}
    settings = tiny.config(steps=steps, **changes)
    options = {"quiet": True, **options}
    return loop.fit(tiny.task(), tiny.data(), settings, folder, **options)


def same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (np.asarray(a) == np.asarray(b)).all()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(tmp_path, accumulate):
    settings = dict(accumulate=accumulate, save_every=100)
    whole = run(tmp_path / "whole", 12, **settings)
    run(tmp_path / "parts", 5, **settings)
    run(tmp_path / "parts", 8, **settings)
    parts = run(tmp_path / "parts", 12, **settings)
    same(whole, parts)
    assert int(parts.step) == 12 * accumulate and int(parts.updates) == 12


def test_a_finished_run_is_not_trained_again(tmp_path):
    done, again = run(tmp_path, 6), run(tmp_path, 6)
    same(done, again)


def test_the_table_holds_one_line_per_report(tmp_path):
    run(tmp_path, 6)
    run(tmp_path, 8)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8]
    told = ("loss", "rate", "step_time", "images_per_second", "largest")  # the last: objective's
    assert all(float(row[name]) > 0 for row in rows for name in told)
    assert {row["mfu"] for row in rows} == {""}  # nobody knows what this processor could do


def test_watchers_see_every_save(tmp_path):
    seen = []
    run(tmp_path, 9, watch=lambda k, now: seen.append((k, int(now.step))))
    assert seen == [(3, 3), (6, 6), (9, 9)]


def test_batches_that_are_not_finite_end_the_run_after_a_few(tmp_path):
    def broken(params, cond, batch, key, step):
        loss, facts = tiny.objective(params, cond, batch, key, step)
        return jnp.where(step >= 4, jnp.nan, loss), facts

    with pytest.raises(NotFiniteError, match="3 batches in a row, the last at step 7"):
        loop.fit(tiny.task(broken), tiny.data(), tiny.config(patience=3), tmp_path, quiet=True)
    good = run(tmp_path / "good", 3)
    same(good.trained, run(tmp_path, 3).trained)  # the checkpoint of step 3 is still there


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_has_skipped_a_batch_is_finished_and_hands_out_what_it_learned(
    tmp_path, accumulate
):
    def make(step):
        found = tiny.batch(step)
        return {"x": found["x"] * np.float32(np.nan if step == 2 else 1)}

    given = []
    for steps in (3, 6, 6):  # cut off, whole, and once more
        config = tiny.config(steps=6, accumulate=accumulate)
        now = tiny.config(steps=steps, accumulate=accumulate)
        state = loop.fit(tiny.task(), Stepped(make), now, tmp_path, quiet=True)
        products.at_end(given.append, state, config)
    assert int(state.skipped) == 1 and int(state.updates) < 6
    assert len(given) == 2
    same(given[0], state.average)


def test_settings_of_the_task_and_its_data_are_part_of_a_run(tmp_path):
    """Those of its output, and how long and where it runs, are not."""

    def go(about="3 files", **changes):
        own = dict(word="<toy>", templates="object", layout="diffusers", part=dict(size=4))
        config = tiny.config(steps=3, **(own | changes))
        data = {"folder": about}
        return loop.fit(tiny.task(), tiny.data(), config, tmp_path, about=data, quiet=True)

    go()
    go(layout="kohya", save_every=1, on_error="warn", skip_broken=True)
    for change, said in (
        (dict(word="<cat>"), 'word is "<toy>" there and "<cat>" here'),
        (dict(part=dict(size=5)), "part.size is 4 there and 5 here"),
        (dict(about="4 files"), 'folder is "3 files" there and "4 files" here'),
    ):
        with pytest.raises(UserError, match=said):
            go(**change)
    go(setting_of_a_later_version=True)


def test_a_folder_of_data_is_known_by_names_sizes_and_bytes(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"abc")
    (tmp_path / "b.txt").write_text("a {}")
    seen = [of_folder(tmp_path)]
    assert seen[0].startswith("2 files, ")
    (tmp_path / ".hidden").write_text("nothing")
    assert of_folder(tmp_path) == seen[0]
    (tmp_path / "in" / "a.png").write_bytes(b"abd")
    seen.append(of_folder(tmp_path))
    monkeypatch.setattr(digests, "_FEW", 1)  # many files: names and sizes alone
    seen.append(of_folder(tmp_path))
    (tmp_path / "in" / "a.png").write_bytes(b"xyz")
    assert of_folder(tmp_path) == seen[-1]
    (tmp_path / "in" / "a.png").rename(tmp_path / "in" / "c.png")
    seen.append(of_folder(tmp_path))
    assert len(set(seen)) == 4


def test_a_disk_without_room_for_the_end_is_told_before_the_first_step(tmp_path, monkeypatch):
    free = disk.shutil.disk_usage(tmp_path).free
    asked = []

    def make(step):
        asked.append(step)
        return tiny.batch(step)

    def go(**changes):
        config = tiny.config(steps=3, **changes)
        return loop.fit(tiny.task(), Stepped(make), config, tmp_path, room=2 * free, quiet=True)

    with pytest.raises(disk.DiskFull, match="what is written at the end need"):
        go()
    assert not asked
    with pytest.warns(UserWarning, match="not saved: .* at the end need"):
        go(on_error="warn")
    assert asked == [0, 1, 2]
    go()  # done: there is nothing left to do
    with pytest.raises(UserError, match="on_error is stop or warn"):
        go(on_error="perhaps")


def test_weights_come_back_as_they_were(tmp_path):
    tree = {
        "a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "c": np.float32([7]),
        "d": np.float32(3),
    }
    weights.save(tree, tmp_path / "w.safetensors")
    back = weights.load(tmp_path / "w.safetensors")
    assert (back["a"]["b"] == tree["a"]["b"]).all() and (back["c"] == tree["c"]).all()
    assert back["d"].shape == () and back["d"] == 3
