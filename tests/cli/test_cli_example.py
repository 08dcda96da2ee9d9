"""`--example`: Paint by Example on the command line, its recipe and its replay."""

import jax
import numpy as np
import pytest
from PIL import Image

from diffedit_jax import images, recipe
from diffedit_jax.cli import main
from tests.golden_models import exemplar_folder


@pytest.fixture
def paint(tmp_path, monkeypatch, capsys):
    """Runs the method with further words -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))
    (tmp_path / "model").mkdir()
    exemplar_folder(tmp_path / "model")
    rng = np.random.default_rng(0)
    for name, size in {"cat": (32, 32), "dog": (9, 14)}.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(f"{name}.png")
    hole = np.zeros((32, 32), np.uint8)
    hole[8:24, 8:24] = 255
    Image.fromarray(hole).save("hole.png")
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save("dot.png")
    words = ("edit", "cat.png", "--method", "paint_by_example", "--model", "model", "--steps", "2",
             "--solver", "ddim", "--size", "32", "--mask", "hole.png")  # fmt: skip

    def run(*more):
        code = main([*(more if more[0] == "replay" else (*words, *more))])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_an_example_is_painted_written_down_and_replayed(paint):
    code, _, err = paint("--example", "dog.png", "--out", "out.png")
    assert code == 0, err
    assert images.read("out.png").pixels.std() > 1
    said = recipe.from_png("out.png")
    assert said["inputs"]["example"] == {"path": "dog.png", "sha256": recipe.digest("dog.png")}
    assert "example" not in said["parameters"]
    code, out, _ = paint("replay", "out.png")
    assert (code, out) == (0, "identical\n")
    Image.fromarray(np.full((9, 14, 3), 200, np.uint8)).save("dog.png")
    code, _, err = paint("replay", "out.png")
    assert code == 2 and "example dog.png has changed" in err


def test_mistakes_are_one_line_and_write_nothing(paint, tmp_path):
    mistakes = {
        (): "needs example",
        ("--example", "none.png"): "none.png does not exist",
        ("--example", "dot.png"): "dot.png is 1x1 pixels",
        ("--example", "model"): "model is a folder",
        ("--example", "dog.png", "--prompt", "a dog"): "no parameter 'prompt'",
        ("--example", "dog.png", "--set", "layout=x"): "layout must be",
    }
    for words, said in mistakes.items():
        code, out, err = paint(*words, "--out", "bad.png")
        assert (code, out) == (2, "") and err.count("\n") == 1 and said in err, err
    assert not (tmp_path / "bad.png").exists()
