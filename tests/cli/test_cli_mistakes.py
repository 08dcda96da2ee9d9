"""Bad input: one line on stderr that names what to change, exit 2, nothing half-written."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

EDIT = ("edit", "cat.png", "--method", "negate", "--prompt", "a dog", "--out", "dog.png")


def without(option):
    at = EDIT.index(option)
    return EDIT[:at] + EDIT[at + 2 :]


@pytest.mark.parametrize(
    "content, words",
    [
        (None, ["missing.png", "not exist"]),
        (b"", ["empty"]),
        (b"words", ["not a picture"]),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", ["PostScript"]),
        (b"<svg></svg>", ["SVG"]),
        (b"%PDF-1.4", ["PDF"]),
    ],
)
def test_what_is_no_picture(pictures, refused, content, words):
    if content is not None:
        (pictures / "missing.png").write_bytes(content)
    line = refused("edit", "missing.png", *EDIT[2:])
    assert all(word in line for word in ["missing.png", *words])


def test_a_truncated_picture(pictures, refused):
    data = (pictures / "cat.png").read_bytes()
    (pictures / "cat.png").write_bytes(data[: len(data) // 2])
    assert "cat.png" in refused(*EDIT)


def test_a_decompression_bomb(pictures, refused):
    Image.new("1", (9_600, 9_600)).save("bomb.png")
    assert "pixels" in refused("edit", "bomb.png", *EDIT[2:])


def test_a_mask_of_another_shape_or_no_mask_at_all(pictures, refused):
    Image.new("L", (5, 6)).save("small.png")
    line = refused(*EDIT, "--mask", "small.png")
    assert "5x6" in line and "64x48" in line
    assert "nomask.png" in refused(*EDIT, "--mask", "nomask.png")


def test_prompts(refused):
    line = refused(*without("--prompt"), "--prompt", "x" * 10_000)
    assert "prompt" in line and "10,000" in line
    assert "Unicode" in refused(*without("--prompt"), "--prompt", "a \udc80 cat")
    assert "Unicode" in refused("generate", "a \ud800 cat", "--out", "a.png")
    assert "prompt" in refused(*without("--prompt"))


def test_unknown_names_are_answered_with_the_nearest(refused):
    assert "did you mean 'negate'" in refused(*without("--method"), "--method", "negatte")
    assert "did you mean 'strength'" in refused(*EDIT, "--set", "strengt=1")
    assert "ddim" in refused(*EDIT, "--solver", "dimm")
    assert "--strength" in refused(*EDIT, "--stregth", "0.5")
    assert "did you mean 'edit'" in refused("edti", "cat.png")
    assert "no parameter 'guidance'" in refused(*EDIT, "--guidance", "7")
    assert "no parameter 'source'" in refused(*EDIT, "--source", "a cat")


@pytest.mark.parametrize(
    "pair, word",
    [
        ("steps=many", "whole number"),
        ("steps=2.5", "whole number"),
        ("strength=nan", "number"),
        ("strength=inf", "number"),
        ("tidy=perhaps", "true or false"),
        ("tidy", "KEY=VALUE"),
        ("noise=1", "library"),
    ],
)
def test_values_of_another_kind(refused, pair, word):
    assert word in refused(*EDIT, "--set", pair)


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_seeds_out_of_range(refused, seed):
    assert "seed" in refused(*EDIT, "--seed", seed)
    assert "seed" in refused(*EDIT, "--seed", "half")


@pytest.mark.parametrize("size", ["0", "7", "99999", "big", "64x", "-64", "64x64"])
def test_sizes_out_of_range(refused, size):
    assert "size" in refused(*EDIT, f"--size={size}")


def test_outputs_that_cannot_be_written(pictures, refused):
    assert "does not exist" in refused(*without("--out"), "--out", "no/where/dog.png")
    assert ".png" in refused(*without("--out"), "--out", "dog.txt")
    assert "not a folder" in refused(*without("--out"), "--out", "mask.png/dog.png")
    assert "--out is missing" in refused(*without("--out"))
    assert "overwrite" in refused(*without("--out"), "--out", "cat.png")
    assert "give --out a folder" in refused(*EDIT, "--seed", "1", "--seed", "2")


def test_a_full_disk(refused, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert "disk is full" in refused(*EDIT, "--quiet")


def test_a_run_that_breaks_down_writes_nothing(refused):
    assert "step 3 of 4" in refused(*EDIT, "--set", "word=nan")
    assert "--size" in refused(*EDIT, "--set", "word=memory", code=1)
    assert "interrupted" in refused(*EDIT, "--set", "word=stop", code=130)


def test_debug_shows_where(pictures, diffedit):
    with pytest.raises(ValueError, match="not exist"):
        diffedit("edit", "no.png", *EDIT[2:], "--debug")


def test_missing_words(refused):
    assert "which picture" in refused("edit", *EDIT[2:])
    assert "--method" in refused(*without("--method"))
    assert "COMMAND" in refused()
    assert "at least 1" in refused(*EDIT, "--batch", "0")


def test_an_empty_folder(pictures, refused):
    (pictures / "empty").mkdir()
    assert "no picture" in refused("edit", "empty", *EDIT[2:])


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("a.json", "{", ["JSON"]),
        ("a.json", "{}", ["list of objects"]),
        ("a.json", "[]", ["0 rows"]),
        ("a.json", "[3]", ["row 1"]),
        ("a.json", "[" * 100_000, ["JSON"]),
        ("a.json", json.dumps([{"image": 3}]), ["row 1", "image"]),
        ("a.json", json.dumps([{"image": "cat.png", "prompt": ["a"]}]), ["prompt"]),
        ("a.json", json.dumps([{"image": "cat.png", "prompt": "a", "steps": True}]), ["steps"]),
        ("a.json", json.dumps([{"image": "cat.png", "prompt": "a", "colour": 1}]), ["'colour'"]),
        ("a.json", json.dumps([{"image": "no.png", "prompt": "a"}]), ["no.png"]),
        ("a.csv", "image,prompt\ncat.png,a,b\n", ["row 1"]),
        ("a.csv", "image,prompt\ncat.png\n", ["row 1"]),
        ("a.csv", "image,prompt,seed\ncat.png,a,x\n", ["seed"]),
        ("a.csv", "image,prompt,out\ncat.png,a,o.png\ncat.png,b,o.png\n", ["two rows"]),
    ],
)
def test_lists_with_mistakes(pictures, refused, name, text, words):
    (pictures / name).write_text(text)
    line = refused("edit", "--list", name, "--method", "negate", "--out", "out")
    assert all(word in line for word in words), line


def test_a_missing_or_binary_list(pictures, refused):
    assert "cannot be read" in refused("edit", "--list", "no.csv", *EDIT[2:4], "--out", "out")
    (pictures / "b.csv").write_bytes(bytes(range(256)))
    assert "UTF-8" in refused("edit", "--list", "b.csv", *EDIT[2:4], "--out", "out")
    assert "--list" in refused("edit", "cat.png", "--list", "b.csv", *EDIT[2:4], "--out", "out")


def test_nothing_is_edited_when_one_of_many_is_broken(pictures, refused):
    (pictures / "folder").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("folder/a.png")
    (pictures / "folder" / "b.png").write_bytes(b"broken")
    assert "b.png" in refused("edit", "folder", *without("--out")[2:], "--out", "done")
