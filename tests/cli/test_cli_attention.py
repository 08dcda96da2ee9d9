"""`--show-attention` on a tiny complete model, for drawn and for edited pictures."""

import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import diffedit_jax as de
from diffedit_jax.cli import main

TINY = str(pathlib.Path(__file__).parents[1] / "golden" / "latent" / "12_pipelines" / "sd1")
SHARED = ["--model", TINY, "--steps", "2", "--size", "32", "--solver", "ddim", "--quiet"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # the tests' own cache of programs, so that the command line sets none for the whole process
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save("in.png")
    return tmp_path


def test_a_tile_per_word_for_what_is_drawn_and_for_what_is_edited(folder, capsys):
    generate = ["generate", "a cat on a boat", *SHARED, "--out", "drawn.png"]
    assert main([*generate, "--show-attention", "cat boat"]) == 0
    edit = ["edit", "in.png", "--method", "sdedit", "--prompt", "a dog", *SHARED, "--out", "o.png"]
    assert main([*edit, "--show-attention", "dog"]) == 0
    drawn, edited = (np.asarray(Image.open(f"{n}.attention.png")) for n in ("drawn", "o"))
    tile = 196
    assert drawn.shape[1] == 3 * tile and edited.shape[1] == 2 * tile
    assert edited.shape[0] == 2 * drawn.shape[0]  # the picture, and below it the result
    assert main([*generate, "--solver", "euler_ancestral", "--show-attention", "cat boat"]) == 0
    noisy = np.asarray(Image.open("drawn.attention.png"))  # inverted, for it cannot be drawn again
    assert noisy.shape == drawn.shape
    heat = drawn[-tile:, tile:].astype(int)
    assert np.abs(heat[:, :, 0] - heat[:, :, 2]).max() > 50  # coloured, where the picture is not
    (folder / "o.png").unlink()
    assert main([*edit, "--show-attention", "cat"]) == 2
    error = capsys.readouterr().err
    assert "'cat' is not in the prompt; its words are: a, dog" in error and error.count("\n") == 1
    assert not (folder / "o.png").exists()


def test_the_mask_beside_the_picture(folder, capsys):
    shared = [word for word in SHARED if word not in ("--solver", "ddim")]
    edit = ["edit", "in.png", "--prompt", "a dog", *shared, "--show-mask", "--out", "o.png"]
    assert main([*edit, "--method", "diffedit", "--source", "a cat", "--set", "maps=2"]) == 0
    seen = np.asarray(Image.open("o.mask.png"))
    assert seen.shape == np.asarray(Image.open("o.png")).shape and set(np.unique(seen)) == {0, 255}
    given = dict(prompt="a dog", source="a cat", maps=2, steps=2, size=32, solver="ddim")
    model, same = de.load(TINY), {k: v for k, v in given.items() if k != "solver"}
    whole = de.edit(model, "in.png", "diffedit", **same)
    np.testing.assert_array_equal(whole.masks[0], seen[..., 0])
    again = de.edit(model, "in.png", "diffedit", mask=whole.masks[0], **same)
    np.testing.assert_array_equal(again.image, whole.image)
    both = de.edit(model, "in.png", "diffedit+sdedit", **given)
    np.testing.assert_array_equal(both.masks[0], whole.masks[0])
    assert de.edit(model, "in.png", "sdedit", prompt="a dog", steps=2, size=32).masks == ()
    (folder / "o.png").unlink()
    assert main([*edit, "--method", "sdedit"]) == 2
    assert "sdedit finds no mask; diffedit does" in capsys.readouterr().err
    assert not (folder / "o.png").exists()
