"""A full or unwritable disk is told in one line, and never harms what is there."""

import contextlib
import os
import resource
import shutil
import subprocess

import jax
import jax.numpy as jnp
import pytest

from diffedit_jax.checkpoints.write import whole_file, whole_folder, write_safetensors
from diffedit_jax.errors import UserError
from diffedit_jax.training import disk
from diffedit_jax.training.checkpoint import Checkpoints, shapes_of
from diffedit_jax.training.disk import DiskFull

MEGABYTE = 1 << 20


def state(megabytes, seed=0):
    """Random bits, which do not compress."""
    bits = jax.random.bits(jax.random.PRNGKey(seed), (megabytes * MEGABYTE // 4,))
    return {"x": bits, "step": jnp.int32(seed)}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(["mount", *options], check=False).returncode:
        pytest.skip("this system lets nobody mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def rest(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith((".saving", ".removing"))]


def test_a_full_disk_is_told_before_anything_is_written(small_disk):
    with Checkpoints(small_disk / "runs", keep_last=3) as runs:
        for step in (1, 2):
            runs.save(step, state(15, step), {})
        with pytest.raises(
            DiskFull, match=r"needs 1[67],\d{3},\d{3} bytes, \d{1,2},\d{3},\d{3} are free"
        ):
            runs.save(3, state(15, 3), {})
        assert runs.steps() == [1, 2] and not rest(runs.folder)
        assert (runs.restore(shapes_of(state(15)))[0]["x"] == state(15, 2)["x"]).all()


def test_a_disk_that_fills_while_writing_harms_no_older_step(small_disk, monkeypatch):
    monkeypatch.setattr(disk, "check_room", lambda folder, needed: None)
    with Checkpoints(small_disk / "runs", keep_last=3) as runs:
        for step in (1, 2):
            runs.save(step, state(15, step), {})
        runs.save(3, state(15, 3), {})
        with pytest.raises(DiskFull, match="no space left"):
            runs.wait()
        assert runs.steps() == [1, 2] and not rest(runs.folder)
        assert (runs.restore(shapes_of(state(15)))[0]["x"] == state(15, 2)["x"]).all()
        shutil.rmtree(runs.folder / "00000001")  # the user makes room: the run can go on
        runs.save(3, state(15, 3), {})
        runs.wait()
        assert runs.steps() == [2, 3]


def test_a_run_may_go_on_without_the_checkpoint_that_found_no_room(small_disk):
    with Checkpoints(small_disk / "runs", on_error="warn") as runs:
        with pytest.warns(UserWarning, match="not saved: .*make room"):
            runs.save(1, state(60), {})
        runs.save(2, state(5), {})
        runs.wait()
        assert runs.steps() == [2]


@contextlib.contextmanager
def largest_file(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_quota_is_told_like_a_full_disk(tmp_path):
    with Checkpoints(tmp_path) as runs:
        runs.save(1, state(4, 1), {})
        runs.wait()
        with largest_file(MEGABYTE), pytest.raises(UserError, match="File too large|no space left"):
            runs.save(2, state(4, 2), {})
            runs.wait()
        assert runs.steps() == [1] and not rest(runs.folder)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match=f"^cannot write {blocked}[^\n]*$"):
        Checkpoints(blocked / "runs")
    with pytest.raises(UserError, match="mount the bucket"):
        Checkpoints("gs://bucket/run")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        Checkpoints(tmp_path / "runs")


def test_a_read_only_disk_is_one_line(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match="cannot write .*: Read-only file system"):
        Checkpoints(small_disk / "runs")


def test_products_are_whole_or_not_there(small_disk):
    weights = {"a": jax.device_get(state(60)["x"])}
    target = small_disk / "product.safetensors"
    target.write_bytes(b"the old one")
    with pytest.raises(UserError, match="No space left"), whole_file(target) as path:
        write_safetensors(path, weights)
    assert target.read_bytes() == b"the old one" and list(small_disk.iterdir()) == [target]
    with pytest.raises(UserError, match="No space left"), whole_folder(small_disk / "new") as place:
        write_safetensors(place / "a.safetensors", weights)
    assert list(small_disk.iterdir()) == [target]
