"""Pairs that Prompt-to-Prompt draws: what is kept, what is written, and going on."""

import json
import os
import runpy
import sys

import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.training import launch, pair_maker, pairs
from diffedit_jax.training.clip_filter import scores
from diffedit_jax.training.launch import load_config
from tests.training import golden

CONFIG = golden.GOLDEN.parents[2] / "configs" / "make_pairs.py"


class Told:
    """A CLIP that reads the picture's mean as its feature, and knows two texts."""

    def texts(self, texts):
        return np.asarray([{"a cat": (1.0, 0.0), "a dog": (0.0, 1.0)}[text] for text in texts])

    def pictures(self, pictures, preset):
        level = np.asarray(pictures, np.float32).mean((1, 2, 3)) / 255
        return np.stack([np.cos(level), np.sin(level)], -1)


def test_scores_in_closed_form():
    one, other = np.eye(2)
    found = scores(one[None], other[None], one[None], other[None])
    given = (found.before, found.after, found.direction, found.image)
    np.testing.assert_allclose(np.concatenate(given), [1, 1, 1, 0], atol=1e-12)
    still = scores(one[None], one[None], one[None], other[None])
    np.testing.assert_allclose([still.direction[0], still.image[0]], [0, 1], atol=1e-12)
    assert not found.good(image=0.7).any() and found.good(image=0.0).all()


def test_the_best_directions_stay():
    angles = np.float64([0.2, 1.0, 0.6])
    before = np.tile([[1.0, 0.0]], (3, 1))
    after = np.stack([np.cos(angles), np.sin(angles)], -1)
    found = scores(before, after, np.float64([[1, 0]]), np.float64([[0, 1]]))
    assert found.best(2, text=-1, direction=-1, image=-1) == [1, 2]
    assert found.best(3, text=-1, direction=-1, image=0.6) == [2, 0]


@pytest.fixture(scope="module")
def model():
    return golden.tiny()


def test_pairs_are_written_read_and_not_drawn_twice(model, tmp_path):
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    said = {"input": "a cat", "edit": "turn the cat into a dog", "output": "a dog"}
    prompts.write_text(json.dumps(said) + "\n\n" + json.dumps(said) + "\n")
    config = load_config(CONFIG)
    config.update(dict(samples=3, keep=2, steps=2, text=-1.0, direction=-1.0, image=-1.0))
    lines = list(pair_maker.make_pairs(model, Told(), prompts, out, config))
    assert lines == ["0000000: 2 of 3 pairs stay", "0000001: 2 of 3 pairs stay"]
    rows = [json.loads(x) for x in (out / "0000000" / "metadata.jsonl").read_text().splitlines()]
    assert rows[0]["clip_sim_dir"] >= rows[1]["clip_sim_dir"]
    assert all(3 <= row["cfg_scale"] <= 6 and 0.1 <= row["p2p_threshold"] <= 0.9 for row in rows)
    listed = dict(pairs.listed(out))
    assert listed["0000000"] == [str(row["seed"]) for row in rows]
    found = pairs.folder_pairs(model, out, tmp_path / "keep.npy")
    assert found.orders == ("turn the cat into a dog",) * 4
    first = {path: path.stat().st_mtime_ns for path in (out / "0000000").iterdir()}
    drawn = {path.name: path.read_bytes() for path in (out / "0000001").iterdir()}
    (out / "0000001" / "metadata.jsonl").unlink()
    list(pair_maker.make_pairs(model, Told(), prompts, out, config))
    assert first == {path: path.stat().st_mtime_ns for path in (out / "0000000").iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in (out / "0000001").iterdir()}


def test_the_script_draws_pairs_by_its_config_and_the_embedded_judge(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])  # the script adds to them
    monkeypatch.setattr(launch, "keep_compiled", lambda folder: None)
    prompts, folder = tmp_path / "prompts.jsonl", golden.GOLDEN / "12_pipelines" / "sd1"
    said = {"caption": "a cat", "edit": "make it a dog", "output": "a dog"}
    prompts.write_text(json.dumps(said))
    low = ["text=-1", "direction=-1", "image=-1", "samples=3", "steps=2", f"model={folder}"]
    words = ["--config", str(CONFIG), "--data", str(prompts), "--out", str(tmp_path / "out")]
    words += [word for change in low for word in ("--set", change)]
    monkeypatch.setattr(sys, "argv", ["make_pairs.py", *words, "--quiet"])
    runpy.run_path(str(CONFIG.parents[1] / "train" / "make_pairs.py"), run_name="__main__")
    ((name, seeds),) = pairs.listed(tmp_path / "out")
    assert name == "0000000" and len(seeds) == 3
    row = json.loads((tmp_path / "out" / name / "metadata.jsonl").read_text().split("\n")[0])
    assert -1 <= row["clip_sim_dir"] <= 1 and row["clip_sim_image"] != 0


def test_a_broken_line_of_prompts_is_named(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"caption": "a", "edit": "b", "output": "c"}\n{"edit": 1}\n')
    with pytest.raises(UserError, match="line 2"):
        pair_maker.read_prompts(tmp_path / "p.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        pair_maker.read_prompts(tmp_path / "absent.jsonl")
    (tmp_path / "p.jsonl").write_bytes('{"caption": "é"}'.encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        pair_maker.read_prompts(tmp_path / "p.jsonl")
