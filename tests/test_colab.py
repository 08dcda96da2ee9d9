"""The notebooks: the .ipynb says what the .py says, and every cell runs."""

import pathlib

import pytest
from ml_collections import ConfigDict

from configs import dreambooth_lora
from diffedit_jax.bundles.stable_diffusion import StableDiffusion

jupytext = pytest.importorskip("jupytext")

COLAB = pathlib.Path(__file__).parents[1] / "colab"
SOURCES = sorted(COLAB.glob("*.py"))


def cells(path):
    return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]


def test_there_is_a_notebook():
    assert SOURCES


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_the_generated_notebook_is_up_to_date(source):
    """Mend with: jupytext --to ipynb colab/NAME.py"""
    assert cells(source.with_suffix(".ipynb")) == cells(source)


@pytest.fixture
def short(monkeypatch):
    """The same programs with few steps and few pictures of the class."""
    own, config = StableDiffusion.defaults.fget, dreambooth_lora.get_config
    fewer = dict(class_pictures=4, class_steps=2)
    monkeypatch.setenv("TRAIN_STEPS", "2")
    monkeypatch.setattr(
        StableDiffusion, "defaults", property(lambda self: own(self) | {"steps": 4})
    )
    monkeypatch.setattr(
        dreambooth_lora, "get_config", lambda: ConfigDict(config().to_dict() | fewer)
    )


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_every_cell_runs(source, tmp_path, monkeypatch, short):
    monkeypatch.chdir(tmp_path)
    names = {}
    for kind, text in cells(source):
        if kind == "code":
            exec(compile(text, str(source), "exec"), names)
