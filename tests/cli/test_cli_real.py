"""The command line with a real (tiny, random) Stable Diffusion, in-process and as a program."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from diffedit_jax import images
from diffedit_jax.cli import main

MODEL = pathlib.Path(__file__).parents[1] / "golden" / "latent" / "12_pipelines" / "sd1"
EDIT = (
    *("edit", "cat.png", "--method", "sdedit", "--model", MODEL),
    *("--steps", "4", "--solver", "ddim"),
)
PROMPT = ("--prompt", "a dog")


@pytest.fixture
def diffedit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save("cat.png")

    def run(*words):
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_edit_preview_and_replay(diffedit, tmp_path):
    code, _, err = diffedit(*EDIT, *PROMPT, "--preview", "1", "--out", "dog.png")
    assert code == 0 and "wrote dog.png" in err
    assert images.read("dog.png").pixels.std() > 1
    assert len(list(tmp_path.glob("dog.step-*.png"))) == 2  # 3 of 4 steps run, the last is the end
    code, out, _ = diffedit("replay", "dog.png")
    assert (code, out) == (0, "identical\n")
    mistakes = {
        ("--steps", "0"): "steps",
        ("--steps", "1001"): "steps",
        ("--strength", "0"): "strength",
        ("--strength", "1.5"): "strength",
        ("--strength", "0.1"): "strength",
        ("--guidance", "1e38"): "NaN",
    }
    for words, said in mistakes.items():
        code, out, err = diffedit(*EDIT, *PROMPT, *words, "--out", "bad.png")
        assert (code, out) == (2, "") and err.count("\n") == 1 and said in err, err
    assert not list(tmp_path.glob("*bad*"))


def test_plan_counts_what_a_run_does(diffedit):
    words = ("--model", MODEL, "--steps", "10", "--strength", "0.5", "--solver", "ddim", *PROMPT)
    code, out, err = diffedit("plan", "cat.png", "--method", "sdedit", *words)
    assert code == 0, err
    facts = {line[:12].strip(): line[13:] for line in out.splitlines() if line}
    assert facts["evaluations"].startswith("5 of the network, each with 2 rows")
    assert set(facts) >= {"operations", "memory", "compiles", "device", "pictures"}


def test_the_official_size_is_written_down_and_replayed(diffedit):
    """Pictures that are cut to different sizes run after each other; a replay cuts again."""
    Image.new("RGB", (64, 30), "red").save("wide.png")
    model = MODEL.parent / "ip2p"
    words = ("--method", "instruct_pix2pix", "--model", model, "--prompt", "make it red",
             "--steps", "1", "--solver", "ddim", "--set", "compat=official")  # fmt: skip
    code, _, err = diffedit("edit", "cat.png", "wide.png", *words, "--out", "red/")
    assert code == 0, err
    cat, wide = (images.read(f"red/{name}.png").pixels for name in ("cat", "wide"))
    assert cat.shape[0] > cat.shape[1] and wide.shape[0] < wide.shape[1]
    code, out, err = diffedit("replay", "red/cat.png")
    assert (code, out) == (0, "identical\n"), err
    code, _, err = diffedit("edit", "cat.png", *words, "--original-size", "--out", "bad.png")
    assert code == 2 and "cannot come back" in err and err.count("\n") == 1


def program(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "diffedit_jax", *map(str, words)],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def test_as_a_program(tmp_path):
    done = program("edit", tmp_path / "no.png", *EDIT[2:], *PROMPT, "--out", tmp_path / "o.png")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "no.png" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_does_not_wait_for_jax():
    code = (
        "import sys\nfrom diffedit_jax.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print('jax' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False False"


def test_an_early_end_of_the_pipe_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m diffedit_jax methods --json | head -c 1",
        shell=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "[" and done.stderr == ""


def session(*commands, **environment):
    """What several commands in one process of their own say; each must end well."""
    code = ("import json, sys\nfrom diffedit_jax.cli import main\n"
            "sys.exit(max(main(words) for words in json.loads(sys.argv[1])))")  # fmt: skip
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run([sys.executable, "-c", code, words], capture_output=True, text=True,
                          env={**os.environ, **environment})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_second_run_compiles_nothing_and_plan_knew(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "cat.png")
    words = (tmp_path / "cat.png", *EDIT[2:], *PROMPT)
    home = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    first = session(["plan", *words], ["edit", *words, "--out", tmp_path / "a.png"], **home)
    assert "compiles     yes" in first
    other, larger = ["--guidance", "3"], ["--size", "128"]
    edit = ["edit", *words, "--out", tmp_path / "b.png"]
    again = session(["plan", *words, *other], edit, ["plan", *words, *larger], **home)
    assert re.findall(r"compiles +(yes|no)", again) == ["no", "yes"]
    same = [images.read(tmp_path / name).pixels for name in ("a.png", "b.png")]
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize(
    "name, content, word",
    [
        ("none/at/all", None, "no model"),
        ("page.safetensors", b"<!DOCTYPE html><html></html>", "page.safetensors"),
        ("pointer.ckpt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
        ("folder", None, "folder"),
    ],
)
def test_models_that_are_none(diffedit, tmp_path, name, content, word):
    if content:
        (tmp_path / name).write_bytes(content)
    if name == "folder":
        (tmp_path / name).mkdir()
    words = ("--method", "sdedit", *PROMPT, "--model", name, "--out", "dog.png")
    code, out, err = diffedit("edit", "cat.png", *words)
    assert (code, out) == (2, "") and err.count("\n") == 1 and word in err, err
    assert not (tmp_path / "dog.png").exists()


def test_a_checkpoint_that_tries_to_run_code(diffedit, tmp_path):
    words = ("--method", "sdedit", *PROMPT, "--out", "dog.png")
    code, out, err = diffedit(
        "edit", "cat.png", *words, "--model", MODEL.parent / "must_be_refused.ckpt"
    )
    assert (code, out) == (2, "") and err.count("\n") == 1, err


def test_convert_there_and_refuse_to_overwrite(diffedit, tmp_path):
    code, _, err = diffedit("convert", MODEL, "one.safetensors", "--dtype", "float16")
    assert code == 0 and "wrote one.safetensors" in err
    code, _, err = diffedit("convert", MODEL, "one.safetensors")
    assert code == 2 and err.count("\n") == 1 and "one.safetensors" in err
