"""`--sweep` and `--show-attention` by the command line."""

import numpy as np
import pytest
from PIL import Image

from diffedit_jax import recipe
from diffedit_jax.cli import main
from diffedit_jax.cli.sweep import axes_of
from diffedit_jax.methods.registry import find

EDIT = ["edit", "cat.png", "--method", "negate", "--prompt", "a", "--quiet"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("steps=1,2", [1, 2]),
        ("steps=10:50:3", [10, 30, 50]),
        ("strength=0.4:0.9:6", [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        ("seed=0:2:3", [0, 1, 2]),
        ("prompt=a cat, red|a dog", ["a cat, red", "a dog"]),
    ],
)
def test_values_are_read(pictures, text, values):
    assert axes_of(find("negate"), [text]) == {text.split("=")[0]: values}


def test_a_sweep_writes_one_sheet_whose_cells_can_be_replayed(pictures, capsys):
    words = ["--sweep", "seed=3,5", "--sweep", "steps=1,2,4", "--sweep-files", "--out", "s.png"]
    assert main([*EDIT, *words]) == 0
    sheet = np.asarray(Image.open("s.png"))
    assert sheet.shape[0] > 2 * 48 and len(list(pictures.glob("s.seed=*.png"))) == 6
    assert recipe.from_png("s.seed=5.steps=2.png")["parameters"]["steps"] == 2
    assert main(["replay", "s.png", "--cell", "seed=5,steps=2", "--out", "r.png", "--quiet"]) == 0
    assert capsys.readouterr().out == "identical\n"
    assert main(["replay", "s.png", "--out", "r.png", "--quiet"]) == 2
    assert "steps=1|2|4" in capsys.readouterr().err


def test_what_is_drawn_can_be_swept(pictures):
    words = ["generate", "a cat", "--sweep", "seed=1,2", "--out", "s.png", "--quiet"]
    assert main(words) == 0
    assert "sweep" in recipe.from_png("s.png")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sweep", "strenght=1"], "did you mean 'strength'"),
        (["--sweep", "strength"], "should be --sweep KEY=A,B,C"),
        (["--sweep", "strength="], "names no values"),
        (["--sweep", "strength=0.1:0.9:0"], "names no values"),
        (["--sweep", "steps=1:4:3"], "takes whole numbers"),
        (["--sweep", "steps=a:b:c"], "should be START:STOP:COUNT"),
        (["--sweep", "steps=two"], "steps should be a whole number"),
        (["--sweep", "steps=1", "--sweep", "steps=2"], "swept twice"),
        (["--sweep", "seed=0:999:1000"], "1,000 cells"),
        (["--sweep", "steps=1,2", "--steps", "3"], "swept and given"),
        (["--sweep", "seed=1,2", "--seed", "3"], "swept and given"),
        (["--sweep", "steps=1,2", "--preview"], "neither --preview"),
        (["--sweep", "steps=1,2", "--show-attention", "cat"], "goes with single results"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(pictures, capsys, words, said):
    assert main([*EDIT, "--out", "s.png", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (pictures / "s.png").exists()
