"""The embedded models told by orders and by examples: small, whole, as good as their cards say."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.bench import judge
from diffedit_jax.bench.entrants import entrants
from diffedit_jax.scenes import Scene, exemplar, instruction, place
from diffedit_jax.scenes.edits import change_background, swap_object

ASSETS = Path(str(files("diffedit_jax") / "assets"))
NAMES = ["emoji-example", "emoji-instruct"]


@pytest.fixture(scope="module")
def model():
    return de.load("emoji-example")


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_into_10_mb_of_half_precision(name):
    from safetensors import safe_open

    place = ASSETS / name
    assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) <= 10_000_000
    for path in place.rglob("*.safetensors"):
        with safe_open(path, "np") as handle:
            kinds = {str(handle.get_slice(name).get_dtype()) for name in handle.keys()}  # noqa: SIM118
        assert kinds == {"F16"}


@pytest.mark.parametrize(
    ("name", "script", "kinds"),
    [
        ("emoji-example", "train/paint_by_example.py", ("object", "unseen_object")),
        ("emoji-instruct", "train/instruct_pix2pix.py", ("object", "unseen_swap")),
    ],
)
def test_its_card_gives_the_recipe_the_licence_and_intervals(name, script, kinds):
    card = (ASSETS / name / "README.md").read_text()
    for word in (script, "Noto", "Fluent", "Apache", "MIT", "95 %", "held"):
        assert word in card
    report = json.loads((ASSETS / name / "quality.json").read_text())
    for kind in kinds:
        row = report["kinds"][kind]["success"]
        assert row["low"] <= row["value"] <= row["high"] and row["n"] >= 64
        assert f"{row['value']:.2f}" in card


def test_it_is_told_by_pictures_and_the_bench_finds_it(model):
    assert model.in_channels == 9 and model.exemplar is not None and not model.texts
    found, left_out = entrants("emoji", ["paint_by_example"])
    assert not left_out and [each.model for each in found] == ["emoji-example"]


def test_the_bench_finds_the_one_told_by_orders():
    found, left_out = entrants("emoji", ["instruct_pix2pix"])
    assert not left_out and [each.model for each in found] == ["emoji-instruct"]
    model = de.load("emoji-instruct")
    assert model.in_channels == 8 and model.defaults["image_guidance"] == 2.5


@pytest.mark.slow
def test_it_paints_what_it_is_shown(model):
    """Four swaps: most examples are recognised, and everything around them stays."""
    swaps = [("cat", "panda", "blue"), ("dog", "tree", "white"), ("pig", "star", "green"),
             ("house", "frog", "purple")]  # fmt: skip
    edits = [
        swap_object(Scene((place(old, None, "centre"),), ground), new,
                    "red" if new == "star" else None)
        for old, new, ground in swaps
    ]  # fmt: skip
    edited = de.edit(
        model, np.stack([e.source_image for e in edits]), "paint_by_example",
        example=[exemplar(e) for e in edits], mask=[e.mask.astype(np.float32) for e in edits],
        steps=20, seed=[0, 1, 2, 3],
    ).image  # fmt: skip
    right = judge.right(judge.embedded_judge(), edited, [e.target for e in edits])
    assert right["object"].sum() >= 2
    assert right["background"].all()


@pytest.mark.slow
def test_it_does_what_it_is_told():
    """Two orders: what they ask for is there, and the rest stays."""
    scene = Scene((place("cat", None, "centre"),), "blue")
    edits = [change_background(scene, "red"), swap_object(scene, "dog")]
    edited = de.edit(
        de.load("emoji-instruct"), np.stack([e.source_image for e in edits]), "instruct_pix2pix",
        prompt=[instruction(e) for e in edits], steps=20, seed=[0, 1],
    ).image  # fmt: skip
    right = judge.right(judge.embedded_judge(), edited, [e.target for e in edits])
    assert all(right[name].all() for name in ("object", "background", "pattern"))
