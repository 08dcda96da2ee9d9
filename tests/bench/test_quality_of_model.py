"""The measurement itself: a perfect model passes, a model that does nothing does not."""

from importlib.resources import files

import numpy as np
import pytest

from diffedit_jax.bench import judge
from diffedit_jax.bench import quality_of_model as measures
from diffedit_jax.scenes import render_batch


@pytest.fixture(scope="module")
def params():
    return judge.load_judge(str(files("diffedit_jax") / "assets/emoji/judge/judge.safetensors"))


@pytest.fixture
def perfect(monkeypatch):
    """A model that draws and edits exactly as asked, and an autoencoder without loss."""
    monkeypatch.setattr(measures, "draw", lambda m, scenes, p, **o: render_batch(scenes))
    monkeypatch.setattr(measures, "reconstruct", lambda m, pictures: pictures)

    def edit(model, edits, *rest, **options):
        return np.stack([each.target_image for each in edits])

    monkeypatch.setattr(measures, "apply_edits", edit)


def test_batches_are_filled_up_and_cut_again():
    seen = []

    def part(start, numbers, letters):
        seen.append((start, len(numbers)))
        return np.asarray([n + (c == "b") for n, c in zip(numbers, letters, strict=True)])

    numbers = list(range(70))
    out = measures.in_batches(part, numbers, ["a"] * 69 + ["b"])
    assert (out == [*range(69), 70]).all()
    assert seen == [(0, 32), (32, 32), (64, 32)]


def test_choosing_and_measuring_never_share_a_scene_order():
    chosen, measured = (measures.scenes_for(p, 64) for p in ("choose", "measure"))
    assert chosen != measured and measured == measures.scenes_for("measure", 64)
    assert not any(scene.held_out for scene in measured)
    assert all(s.held_out for s in measures.scenes_for("measure", 16, held_out=True))


def test_a_perfect_model_is_called_perfect(perfect, params):
    drawn = measures.drawing(None, params, 128)
    assert all(found["value"] >= 0.95 for found in drawn.values())
    assert drawn["style"]["n"] < 128 and drawn["object"]["n"] == 128
    assert measures.held_out(None, params, 64)["object"]["value"] >= 0.95
    swapped = measures.editing(None, params, "object", "sdedit", 64)
    assert swapped["object"]["value"] >= 0.95
    assert swapped["psnr_outside"]["value"] == swapped["psnr_to_truth"]["value"] == 99


def test_a_model_that_leaves_the_picture_alone_fails(perfect, params, monkeypatch):
    def lazy(model, edits, *rest, **options):
        return np.stack([each.source_image for each in edits])

    monkeypatch.setattr(measures, "apply_edits", lazy)
    found = measures.editing(None, params, "object", "sdedit", 64)
    assert found["object"]["value"] < 0.1
    assert found["psnr_outside"]["value"] == 99 > found["psnr_to_truth"]["value"]


def test_bars_are_compared_the_right_way_round():
    good = {"value": 1.0, "low": 0.9, "high": 1.0, "n": 64}
    found = {
        "judge": {"object": good},
        "text_to_image": dict.fromkeys(("object", "background", "pattern", "style"), good),
        "held_out_pairs": {"object": {**good, "value": 0.5}},
        "vae_psnr": {**good, "value": 28.4},
        "sdedit_object": {"object": good},
        "sdedit_background": {"background": good},
        "inversion": {"below_vae": {**good, "value": 1.2}},
    }
    rows = measures.against_bars(found)
    assert set(rows) == set(measures.BARS)
    missed = {name for name, row in rows.items() if not row["met"]}
    assert missed == {"held_out_object", "inversion_below_vae"}
