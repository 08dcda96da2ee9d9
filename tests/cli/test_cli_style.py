"""`--style`: InST on the command line, its recipe and its replay."""

import jax
import numpy as np
import pytest
from PIL import Image

from diffedit_jax import recipe
from diffedit_jax.cli import main
from tests.golden_models import GOLDEN, style_file


@pytest.fixture
def styled(tmp_path, monkeypatch, capsys):
    """Runs the method with further words -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save("cat.png")
    style_file(tmp_path / "style.safetensors")
    model = str(GOLDEN / "12_pipelines" / "sd1")
    words = ("edit", "cat.png", "--method", "inst", "--model", model, "--steps", "2",
             "--size", "32", "--out", "out.png")  # fmt: skip

    def run(*more):
        code = main([*(more if more[0] == "replay" else (*words, *more))])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_style_is_recorded_and_replayed(styled, tmp_path):
    code, _, err = styled("--style", "style.safetensors", "--set", "adain=0.5")
    assert code == 0, err
    said = recipe.from_png("out.png")
    assert said["inputs"]["style"]["path"] == "style.safetensors"
    assert said["parameters"]["adain"] == 0.5 and "style" not in said["parameters"]
    assert styled("replay", "out.png")[:2] == (0, "identical\n")
    style_file(tmp_path / "style.safetensors", seed=1)
    code, _, err = styled("replay", "out.png")
    assert code == 2 and "style.safetensors has changed since the recipe was written" in err


def test_mistakes_are_one_line_and_write_nothing(styled, tmp_path):
    style_file(tmp_path / "wide.safetensors", width=24)
    wrong = {
        (): "inst needs style",
        ("--style", "none.safetensors"): "none.safetensors",
        ("--style", "cat.png"): "cat.png",
        ("--style", "wide.safetensors"): "made for another base model",
        ("--style", "style.safetensors", "--prompt", "a cat"): "the style's word",
        ("--style", "style.safetensors", "--set", "adain=2"): "adain must be from 0 to 1",
        ("--style", "style.safetensors", "--strength", "0"): "strength must be in (0, 1]",
    }
    for words, why in wrong.items():
        code, _, err = styled("--quiet", *words)
        assert code == 2 and why in err and err.count("\n") == 1, (words, err)
    assert not (tmp_path / "out.png").exists()
