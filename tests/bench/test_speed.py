"""Contests, and the accounts of time that they print."""

import json
import pathlib

import pytest

from diffedit_jax.bench import contest, edit_time, parts, random_model, speed, unet_entry
from diffedit_jax.errors import UserError
from diffedit_jax.models import UNet

from .tiny import TINY_VAE

HERE = {"PYTHONPATH": f"{pathlib.Path(__file__).parent}:{pathlib.Path(__file__).parents[2]}"}


def test_entries_of_one_process_take_turns():
    quick, slow = (contest.Entry(name, "turns", (), HERE, name) for name in ("quick", "slow"))
    times = contest.contest([quick, slow], 3)
    assert [t.title for t in times] == ["quick", "slow"]
    assert all(len(t.wall) == 3 and t.facts["name"] == "turns" for t in times)
    assert times[0].median < 0.05 <= times[1].median
    ratio = speed.times_table(times).splitlines()[2].split()[-1]
    assert float(ratio) > 1


def test_an_entry_that_cannot_start_is_named():
    with pytest.raises(UserError, match="nobody"):
        contest.contest([contest.Entry("nobody", "diffedit_jax.bench.nobody", ())], 1)


def test_seconds_add_up_to_the_whole():
    said = "diffedit: note: x\ndiffedit: wrote a.png in 2.1 s: compile 0.6, load 0.5, run 1.0\n"
    found = edit_time.parts_of(said, 3.5)
    assert found == {
        "import": pytest.approx(1.4), "compile": 0.6, "load": 0.5, "run": 1.0, "wall": 3.5,
    }  # fmt: skip


def test_a_mistake_gets_one_line(capsys):
    assert speed.main(["--what", "lunch"]) == 2
    assert "lunch" in capsys.readouterr().err


def test_every_layer_of_a_network_is_counted_once():
    unet = UNet.from_config(unet_entry.SMALL)
    weights = unet_entry.unet_weights(unet, unet_entry.SMALL)
    leaves = [path[-1].key for path, _ in parts.jax.tree_util.tree_leaves_with_path(weights)]
    found = parts.calls(unet, unet_entry.SMALL, 2)

    def count(*words):
        return sum(n for call, n in found.items() if call.kind.startswith(words))

    assert count("convolution", "linear") == leaves.count("kernel")
    assert count("group norm", "layer norm") == leaves.count("scale")
    assert count("attention, self") == count("attention, text") == 4  # down, middle, up, up


@pytest.mark.slow
def test_contest_of_networks_on_the_same_weights(tmp_path, capsys):
    pytest.importorskip("diffusers")
    out = tmp_path / "speed.json"
    words = ["--tiny", "--kinds", "float32", "--repeats", "2", "--no-parts", "--json", str(out)]
    assert speed.main(["--what", "unet", *words]) == 0
    found = json.loads(out.read_text())["unet"]
    assert [t["title"] for t in found["times"]] == ["torch float32", "ours float32"]
    assert found["differences"]["ours float32"] < 2e-5
    assert "ratio" in capsys.readouterr().out


@pytest.mark.slow
def test_contest_of_training_steps_on_the_same_batch(tmp_path, capsys):
    """Half subject, half class; the loss after one update says that the updates are the same."""
    pytest.importorskip("diffusers")
    folder, out = tmp_path / "model", tmp_path / "speed.json"
    random_model.write_random_model(folder, unet=unet_entry.SMALL, vae=TINY_VAE)
    words = ["--model", str(folder), "--train-batch", "2", "--repeats", "2", "--json", str(out)]
    assert speed.main(["--what", "train", *words]) == 0
    found = json.loads(out.read_text())["train"]
    assert [t["title"] for t in found["times"]] == ["torch", "ours"] and found["batch"] == 2
    first, second = (t["facts"]["losses"] for t in found["times"])
    assert max(found["apart"]) < 1e-4 and first[0] != first[1] and second[0] != second[1]
    said = capsys.readouterr().out
    assert "ratio" in said and "images per second: torch" in said


def test_entries_that_do_not_fit_beside_each_other_run_apart():
    names = ("quick", "slow")
    entries = [contest.Entry(name, "turns", (), HERE, name) for name in names]
    times = contest.contest(entries, 2, apart=True)
    assert [t.title for t in times] == list(names)
    assert times[0].median < 0.05 <= times[1].median
