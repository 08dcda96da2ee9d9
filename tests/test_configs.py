"""Every config says what it is, and runs for two steps."""

import importlib.util
import inspect
import pathlib

import numpy as np
import pytest

import diffedit_jax as de
from tests.golden_models import exemplar_folder, style_file

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
TINY = pathlib.Path(__file__).parent / "golden" / "latent" / "12_pipelines"
BY_CHANNELS = {4: "sd1", 8: "ip2p", 9: "inpaint"}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=[p for p in CONFIGS if "method=" in p.read_text()],
                ids=lambda p: p.stem)  # fmt: skip
def method_config(request):
    return load(request.param).get_config().to_dict()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_says_paper_hardware_outcome_and_command(path):
    text = inspect.getdoc(load(path))
    for word in ("Hardware:", "utcome", "Command:"):
        assert word in text, f"{path.name} does not say {word}"
    assert ("Paper:" in text) or ("Method:" in text)


def test_every_method_has_a_config():
    names = {p.stem for p in CONFIGS}
    assert set(de.methods()) <= names


def test_a_methods_config_runs_for_two_steps(method_config, tmp_path):
    name = method_config.pop("method")
    known = de.methods()[name]
    by_example = known.told_by == "example"
    folder = exemplar_folder(tmp_path) if by_example else TINY / BY_CHANNELS[known.channels[0]]
    model = de.load(str(folder))
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    mask = np.zeros((32, 32), np.float32)
    mask[8:24, 8:24] = 1
    told = dict(prompt="a dog on a boat", source="a cat on a boat", example=picture[:9])
    if "style" in known.parameters:
        told |= dict(prompt="a dog in *", style=style_file(tmp_path / "style.safetensors"))
        told.pop("example")  # the file holds what the painting said
    given = {
        **method_config,
        **{k: v for k, v in told.items() if k in known.parameters},
        "steps": 2,
    }
    if name == "generate":
        image = de.generate(model, height=32, width=32, **given).image
    else:
        masked = (
            {"mask": mask}
            if "mask" in known.parameters and known.parameters["mask"].required
            else {}
        )
        image = de.edit(model, picture, name, size=32, **masked, **given).image
    assert image.dtype == np.uint8 and image.shape[-3:] == (32, 32, 3) and image.std() > 0
