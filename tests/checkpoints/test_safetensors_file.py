"""safetensors: equal to the reference library on sound files, one line for every broken one."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffedit_jax.checkpoints.read import read
from diffedit_jax.checkpoints.write import write_safetensors
from diffedit_jax.errors import UserError

from .golden import PIPELINES, same


@pytest.mark.parametrize("name", ["sd1_single.safetensors", "sd1/unet", "sd1_fp16_variant/vae"])
def test_equal_to_the_reference_library(name):
    path = PIPELINES / name
    path = path if path.is_file() else next(path.glob("*.safetensors"))
    same(read(path), load_file(path))


def test_every_dtype_survives(tmp_path):
    kinds = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
    weights = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in kinds}
    weights["bf16"] = np.linspace(-3, 3, 5).astype(ml_dtypes.bfloat16)
    weights["empty"] = np.zeros((0, 4), np.float32)
    weights["scalar"] = np.array(2.5, np.float32)
    write_safetensors(tmp_path / "a.safetensors", weights)
    same(read(tmp_path / "a.safetensors"), weights)


def test_the_reference_library_reads_what_is_written(tmp_path):
    weights = read(PIPELINES / "sd2_single.safetensors")
    write_safetensors(tmp_path / "a.safetensors", weights)
    same(load_file(tmp_path / "a.safetensors"), weights)


def test_reading_maps_the_file_and_copies_nothing():
    bias = read(PIPELINES / "sd1_single.safetensors")["model.diffusion_model.out.2.bias"]
    assert not bias.flags.owndata and not bias.flags.writeable


def test_a_file_larger_than_memory_is_only_mapped(tmp_path):
    """64 GB, nearly all of it a hole in the file system."""
    count = 16 * 2**30
    header = json.dumps({"a": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}})
    path = tmp_path / "big.safetensors"
    path.write_bytes(packed(header, b""))
    with path.open("r+b") as stream:
        stream.truncate(8 + len(header) + 4 * count)
    assert read(path)["a"].shape == (count,) and read(path)["a"][-1] == 0


def sound() -> bytes:
    header = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [1, 2], "data_offsets": [8, 16]},
    }
    return packed(json.dumps(header))


def packed(header: str, data: bytes = bytes(16)) -> bytes:
    return len(header.encode()).to_bytes(8, "little") + header.encode() + data


def one(**changes) -> bytes:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | changes
    return packed(json.dumps({"a": entry}))


def two(first, second) -> bytes:
    entries = {
        name: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for name, (begin, end) in (("a", first), ("b", second))
    }
    return packed(json.dumps(entries))


BROKEN = {
    "empty": (b"", "is empty"),
    "web page": (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
    "web page in capitals": (b"\n <HTML><HEAD>", "is a web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-LFS"),
    "noise": (bytes(range(200, 256)) * 4, "neither a safetensors nor a torch file"),
    "truncated data": (sound()[:-1], "truncated"),
    "truncated header": (sound()[:40], "truncated"),
    "trailing bytes": (sound() + b"x", "bytes after the last tensor"),
    "header of 2**63": ((2**63).to_bytes(8, "little") + b"{}" + bytes(8), "header wants"),
    "not json": (packed("{a: 1}"), "not valid JSON"),
    "deep json": (packed("{" + '"a":' + "[" * 100_000), "not valid JSON"),
    "duplicate key": (
        packed(
            '{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},'
            '"a":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}}'
        ),
        "'a' appears twice",
    ),  # fmt: skip
    "overlap": (two((0, 10), (8, 16)), "overlaps"),
    "hole": (two((0, 6), (8, 16)), "leaves a hole"),
    "same place twice": (two((0, 16), (0, 16)), "overlaps"),
    "shape too large": (one(shape=[8]), "does not fit"),
    "shape overflow": (one(shape=[2**40, 2**40]), "does not fit"),
    "empty but giant": (one(shape=[0, 2**62], data_offsets=[0, 0]), "does not fit"),
    "negative": (one(shape=[-4]), "malformed"),
    "offsets backwards": (one(data_offsets=[16, 0]), "does not fit"),
    "boolean size": (one(shape=[True]), "malformed"),
    "three offsets": (one(data_offsets=[0, 8, 16]), "malformed"),
    "unknown dtype": (one(dtype="Q7"), "unknown dtype"),
    "entry is text": (packed('{"a": "b"}'), "malformed"),
    "header is a list": (packed("{}".replace("{}", "[]")), "neither"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_get_one_line(tmp_path, case):
    data, message = BROKEN[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_absent_things(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "nothing.safetensors")
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="link to a file that is gone"):
        read(tmp_path / "link")


@pytest.mark.slow
def test_random_damage_never_escapes(tmp_path):
    """2,000 random changes of header bytes: sound, or UserError; never another exception."""
    random = np.random.default_rng(0)
    save_file({"a": np.ones(3, np.float32), "b": np.ones((2, 2), np.float16)}, tmp_path / "s")
    sound = (tmp_path / "s").read_bytes()
    for _ in range(2000):
        data = bytearray(sound)
        for place in random.integers(0, len(data), random.integers(1, 4)):
            data[place] = random.integers(0, 256)
        (tmp_path / "d").write_bytes(data[: random.integers(1, len(data) + 1)])
        try:
            read(tmp_path / "d")
        except UserError as error:
            assert "\n" not in str(error)
