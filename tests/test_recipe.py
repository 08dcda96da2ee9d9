"""Recipes travel in pictures, come back the same, and hostile ones are refused in one line."""

import json
import struct
import zlib

import numpy as np
import pytest

from diffedit_jax import recipe
from diffedit_jax.errors import UserError
from diffedit_jax.images import read, write

PIXELS = np.zeros((2, 2, 3), np.uint8)


@pytest.fixture
def source(tmp_path):
    write(tmp_path / "cat.png", PIXELS)
    return tmp_path / "cat.png"


def made(source, **parameters):
    return recipe.make("sdedit", {"source": "emoji", "digest": "d"}, {"image": source}, parameters)


def test_a_recipe_survives_the_picture(tmp_path, source):
    said = made(source, prompt="a dog \ud800 \N{CAT}", seed=np.int64(3), strength=np.float32(0.5))
    write(tmp_path / "out.png", PIXELS, said)
    assert recipe.from_png(tmp_path / "out.png") == said
    assert said["parameters"]["seed"] == 3 and said["parameters"]["strength"] == 0.5
    assert said["versions"]["jax"] and said["device"]


def test_inputs_are_found_by_path_and_digest(tmp_path, source, monkeypatch):
    said = made(source)
    assert recipe.inputs_of(said) == {"image": str(source)}
    batch = recipe.make("sdedit", {"source": "emoji"}, {"image": [str(source), read(source)]}, {})
    assert recipe.inputs_of(batch) == {"image": [str(source)] * 2}
    (tmp_path / "moved").mkdir()
    source.rename(tmp_path / "moved" / "cat.png")
    assert recipe.inputs_of(said, tmp_path / "moved") == {"image": str(tmp_path / "moved/cat.png")}


def test_a_changed_missing_or_unsaved_input_is_refused(source):
    said = made(source)
    write(source, PIXELS + 1)
    with pytest.raises(UserError, match="cat.png has changed"):
        recipe.inputs_of(said)
    source.unlink()
    with pytest.raises(UserError, match="does not exist"):
        recipe.inputs_of(said)
    with pytest.raises(UserError, match="array"):
        recipe.inputs_of(made(PIXELS))


def test_values_are_made_plain():
    values = dict(a=np.arange(3), b=(1, 2.5), c=float("nan"), d={"e": np.bool_(True)}, f=None)
    said = recipe.plain(values)
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert said["a"]["array"] == [3] and said["b"] == [1, 2.5] and said["c"] == "nan"
    assert recipe.plain(np.arange(3))["sha256"] != recipe.plain(np.arange(3.0))["sha256"]


def png(*chunks):
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        check = struct.pack(">I", zlib.crc32(kind + body))
        data += struct.pack(">I", len(body)) + kind + body + check
    return data


def text(body):
    return (b"iTXt", b"diffedit\0\0\0\0\0" + body)


GOOD = json.dumps(
    {"format": 1, "method": "m", "model": {"source": "emoji"}, "inputs": {}, "parameters": {}}
).encode()


def test_the_reader_understands_a_chunk_made_by_hand(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png((b"IHDR", bytes(13)), (b"tEXt", b"x\0y"), text(GOOD), (b"IDAT", b"")))
    assert recipe.from_png(path)["method"] == "m"


@pytest.mark.parametrize(
    "data, word",
    [
        (b"", "no recipe"),
        (b"not a picture", "no recipe"),
        (png((b"IHDR", bytes(13)), (b"IDAT", b"")), "no recipe"),
        (png((b"IDAT", b""), text(GOOD)), "no recipe"),
        (png(text(GOOD))[:-2], "no recipe"),
        (png(text(GOOD))[:-40], "no recipe"),
        (png((b"iTXt", b"diffedit\0\1\0\0\0" + zlib.compress(GOOD))), "no recipe"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xffiTXtdiffedit", "no recipe"),
        (png(*[(b"tEXt", b"")] * 10_001, text(GOOD)), "no recipe"),
        (png(text(b"x" * (1 << 21))), "no recipe"),
        (png(text(b"{")), "damaged"),
        (png(text(b"\xff\xfe\xfd")), "damaged"),
        (png(text(b"[" * 200_000)), "damaged"),
        (png(text(b'{"format": 1, "x": ' + b"9" * 6000 + b"}")), "damaged"),
        (png(text(GOOD.replace(b"1", b"NaN", 1))), "damaged"),
        (png(text(b"[]")), "format"),
        (png(text(GOOD.replace(b"1", b"2", 1))), "format 2"),
        (png(text(b'{"format": 1}')), "method"),
        (png(text(GOOD.replace(b'"emoji"', b"7"))), "model"),
        (png(text(GOOD.replace(b'"m"', b"[]"))), "method"),
    ],
)
def test_hostile_recipes_are_refused_in_one_line(tmp_path, data, word):
    path = tmp_path / "hostile.png"
    path.write_bytes(data)
    with pytest.raises(UserError, match=word) as error:
        recipe.from_png(path)
    assert "hostile.png" in str(error.value) and len(str(error.value)) < 300
    assert "\n" not in str(error.value)


def test_hostile_inputs_are_refused(tmp_path):
    for value in (7, None, {"path": 3}, {"path": "../../etc/nothing", "sha256": "0"}, [[{}]]):
        with pytest.raises(UserError):
            recipe.inputs_of({"inputs": {"image": value}}, tmp_path)


def test_a_missing_picture(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        recipe.from_png(tmp_path / "no.png")
