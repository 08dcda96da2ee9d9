"""Sweeps on a method that costs nothing, and the sheet they are laid out on."""

import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.sheets import Grid, label
from diffedit_jax.sweeps import cell_recipe, cells_of, sweep
from tests.cli.conftest import Model, calls, pictures  # noqa: F401


@pytest.fixture
def model():
    return Model()


def test_cells_that_may_differ_share_a_batch(pictures, model):  # noqa: F811
    """Prompts and seeds share programs of two; steps take a program per value."""
    over = {"steps": [1, 2], "prompt": ["a", "bb", "ccc"]}
    found = sweep(model, "cat.png", "negate", over, batch=2, watch=lambda *_: None)
    assert [length for length, *_ in calls] == [2, 2, 2, 2]
    reds = [int(image[0, 0, 0]) for image in found.images]
    assert reds == [1, 2, 3, 1, 2, 3]  # the method paints the prompt's length
    assert [r["parameters"]["steps"] for r in found.recipes] == [1, 1, 1, 2, 2, 2]
    assert found.cells[4] == {"steps": 2, "prompt": "bb"}


def test_a_cells_recipe_is_that_of_the_picture_alone(pictures, model):  # noqa: F811
    over = {"seed": [3, 5], "prompt": ["a", "bb"]}
    found = sweep(model, "cat.png", "negate", over, watch=lambda *_: None)
    recipe = found.recipes[3]["parameters"]
    assert (recipe["seed"], recipe["prompt"], recipe["index"]) == (5, "bb", 0)
    assert [int(image[0, 0, 1]) for image in found.images] == [3, 3, 5, 5]


@pytest.mark.parametrize(
    ("over", "given", "said"),
    [
        ({"stepz": [1]}, {}, "did you mean 'steps'"),
        ({"steps": []}, {}, "names no values"),
        ({}, {}, "at least one parameter"),
        ({"mask": [1]}, {}, "mask cannot be swept"),
        ({"steps": [1]}, {"steps": 2}, "swept and given"),
        ({"steps": range(1, 50), "seed": range(50)}, {}, "2,450 cells; at most 400"),
    ],
)
def test_mistakes_are_answered_in_one_line(over, given, said, pictures, model):  # noqa: F811
    with pytest.raises(UserError, match=said) as told:
        sweep(model, "cat.png", "negate", over, prompt="a", **given)
    assert "\n" not in str(told.value) and not calls


@pytest.mark.parametrize("axes", [
    (("a", (1, 2, 3)),),
    (("b", (0.5, 2.0)), ("a", (1, 2, 3))),
    (("d", ("x", "y")), ("c", (7,)), ("b", (0.5, 2.0)), ("a", (1, 2, 3))),
])  # fmt: skip
@pytest.mark.parametrize("shape", [(48, 64, 3), (300, 200, 3)])
def test_every_cell_comes_back_out_of_the_sheet(axes, shape):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, np.uint8) for _ in cells_of(axes)]
    grid = Grid.of(axes, shape)
    sheet = grid.drawn(images)
    assert sheet.shape == (*grid.size, 3)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(grid.cut(sheet, number), image)


def test_labels_are_short():
    assert [label("g", v) for v in (7.50, 3, "cat")] == ["g 7.5", "g 3", "g cat"]


def test_a_cell_is_found_by_the_values_it_was_made_with():
    axes = [["prompt", ["a cat, red", "a dog"]], ["guidance", [3.0, 7.5]]]
    said = {"parameters": {"steps": 4}, "sweep": {"axes": axes}}
    recipe, number = cell_recipe(said, "guidance=3, prompt=a dog")
    assert number == 2 and recipe == {"parameters": dict(steps=4, prompt="a dog", guidance=3.0)}
    assert cell_recipe(said, "prompt=a cat, red,guidance=7.50")[1] == 1
    with pytest.raises(UserError, match="a cat, red|a dog; guidance=3.0|7.5"):
        cell_recipe(said, "guidance=4, prompt=a dog")
