"""A folder with pictures, a model that costs nothing, and `main` as a function of words."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from PIL import Image

from diffedit_jax import api
from diffedit_jax.cli import main
from diffedit_jax.errors import NotFiniteError
from diffedit_jax.methods import registry


class Model:
    """What the command line asks of a bundle, without networks."""

    in_channels, size, factor = 4, 64, 8
    defaults, notices, origin = {}, (), {"source": "emoji", "digest": "d", "options": {}}

    def text_notices(self, texts):
        return [f"the prompt is long: {text[:9]}" for text in texts if len(text) > 1000]


def negate(model, images, *, prompt: list[str], mask=None, strength: float = 0.8,
           steps: int = 4, solver: str = "ddim", tidy: bool = False, word: str | None = None,
           seed: int = 0, index: int = 0, noise=None, watch=None):  # fmt: skip
    """Turns white into black, and as many reds up as the prompt has letters.

    Args:
      prompt: how much red.
      mask: where.
      strength: unused here.
      steps: how often it is watched.
      solver: any.
      tidy: a switch.
      word: a word.
      seed: how much green.
      index: own number.
      noise: none.
    """
    if word == "nan":
        raise NotFiniteError("step 3 of 4 (t = 5) produced NaN or infinity")
    if word == "memory":
        raise MemoryError
    if word == "stop":
        raise KeyboardInterrupt
    for done in range(1, steps + 1):
        watch(done, steps, lambda: np.zeros((len(images), 8, 8, 3), np.uint8))
    out = np.round((1 - images) * 127.5).astype(np.uint8)
    out[..., 0] = np.array([len(p) % 256 for p in prompt], np.uint8)[:, None, None]
    out[..., 1] = np.broadcast_to(np.asarray(seed, np.uint8), len(images))[:, None, None]
    calls.append(
        (len(images), images.shape[1:3], list(prompt), None if mask is None else mask.shape)
    )
    return out


def draw(model, images=None, *, prompt: list[str], height: int | None = None,
         width: int | None = None, steps: int = 4, seed: int = 0, index: int = 0,
         watch=None):  # fmt: skip
    """Draws grey."""
    shape = (len(prompt), height or model.size, width or model.size, 3)
    return np.full(shape, 9, np.uint8)


calls = []


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """The working folder: cat.png 64x48, wide.png 128x32, mask.png; methods negate, generate."""
    monkeypatch.chdir(tmp_path)
    # the tests' own cache of programs, so that the command line sets none
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))
    calls.clear()
    facts = dict(paper="none", channels=(4,), evaluations=lambda p: (p["steps"], 2))
    starts = (negate, "negate", "picture"), (draw, "generate", "noise"), (draw, "draw", "either")
    for function, name, start in starts:
        made = registry.Method(name=name, function=function, start=start, **facts)
        monkeypatch.setitem(registry._METHODS, name, made)
    monkeypatch.setattr(api, "load", lambda source="emoji", **options: Model())
    rng = np.random.default_rng(0)
    for name, size in {"cat": (48, 64), "wide": (32, 128)}.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(f"{name}.png")
    Image.new("L", (64, 48), 255).save("mask.png")
    return tmp_path


@pytest.fixture
def diffedit(pictures, capsys):
    """Runs a command: diffedit("edit", ...) -> (exit code, stdout, stderr)."""

    def run(*words):
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def refused(diffedit, pictures):
    """Runs a command that must fail in one line and write nothing; returns the line."""

    def run(*words, code=2):
        before = sorted(pictures.rglob("*"))
        found, out, err = diffedit(*words)
        assert (found, out) == (code, ""), err
        assert err.startswith("diffedit: ") and err.count("\n") == 1 and "Traceback" not in err
        assert sorted(pictures.rglob("*")) == before
        return err

    return run
