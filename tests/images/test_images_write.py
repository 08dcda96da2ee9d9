"""A picture is written whole or not at all."""

import errno
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from diffedit_jax import recipe
from diffedit_jax.errors import UserError
from diffedit_jax.images import check_writable, read, write

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
RECIPE = {
    "format": 1,
    "method": "sdedit",
    "model": {"source": "emoji"},
    "inputs": {},
    "parameters": {"prompt": "a cät \U0001f408 \ud800", "seed": 3},
}


def test_png_holds_pixels_and_recipe(tmp_path):
    path = tmp_path / "out.png"
    assert write(path, PIXELS, RECIPE) == []
    np.testing.assert_array_equal(read(path).pixels, PIXELS)
    assert recipe.from_png(path) == RECIPE
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]
    assert Image.open(path).text["diffedit"]


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "webp"])
def test_other_kinds_put_the_recipe_beside(tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    notices = write(path, PIXELS, RECIPE)
    assert f"out.{ending}.json" in notices[0]
    assert recipe.from_png(path) == RECIPE
    assert read(path).pixels.shape == PIXELS.shape


def test_two_writes_of_the_same_are_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        write(tmp_path / name, PIXELS, RECIPE)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    "name, word",
    [
        ("out.txt", ".png"),
        ("out", ".png"),
        ("missing/out.png", "does not exist"),
        ("file/out.png", "not a folder"),
        ("folder.png", "is a folder"),
        ("x" * 300 + ".png", "too long"),
    ],
)
def test_bad_targets(tmp_path, name, word):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for attempt in (lambda p: write(p, PIXELS), check_writable):
        with pytest.raises(UserError, match=word):
            attempt(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="not writable"):
        write(tmp_path / "out.png", PIXELS)


@pytest.mark.parametrize("code, word", [(errno.ENOSPC, "full"), (errno.EROFS, "read-only")])
def test_a_full_disk_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch, code, word):
    path = tmp_path / "out.png"
    write(path, PIXELS)
    before = path.read_bytes()

    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=word):
        write(path, PIXELS[::-1], RECIPE)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.png", PIXELS)
    assert list(tmp_path.iterdir()) == []


def test_a_real_short_write(tmp_path):
    """The kernel itself cuts the file off after 4 kB."""
    code = (
        "import signal, sys, resource, numpy as np\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from diffedit_jax.images import write\n"
        "noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)\n"
        "write(sys.argv[1], noise)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out.png")], capture_output=True, text=True
    )
    assert "UserError: cannot write" in run.stderr and "larger" in run.stderr
    assert list(tmp_path.iterdir()) == []
    assert resource.RLIMIT_FSIZE is not None
