"""Parameters that a method says may differ from picture to picture of a batch do."""

import sys

import numpy as np
import pytest

import diffedit_jax as de
from tests.methods.toy_attention import a_picture, toy

PAIRS = dict(
    guidance=[2.0, 4.0], strength=[1.0, 0.5], rescale=[0.3, 0.7], clip_ratio=[3.0, 2.0],
    threshold=[0.5, 0.3], dilate=[0, 1], blur=[0.0, 0.5], injection=[0.2, 0.8],
    injected_steps=[1, 3], inversion_guidance=[1.5, 1.2], tolerance=[1e-5, 1e-3], rate=[0.01, 0.1],
    towards_null=[0.0, 0.5], quantile=[0.5, 0.8], pull=[0.1, 0.2], pull_below=[400.0, 900.0],
    controller=["replace", "refine"], mapper=["aligned", "official"],
    cross_replace_steps=[0.8, "0.5, dog=0.2"], self_replace_steps=[0.4, "0.1:0.9"],
    equalizer=["dog=2", None], blend_words=["cat dog", "mat"], blend_without=["on", None],
    blend_start=[0.2, 0.5], blend_threshold=[0.3, 0.6], blend_without_threshold=[0.9, 0.5],
    adain=[0.2, 0.9],
)  # fmt: skip
NAMES = [name for name, m in de.methods().items() if 4 in m.channels]


@pytest.fixture(autouse=True)
def latents(monkeypatch):
    for name, module in sys.modules.items():
        if name.startswith("diffedit_jax.methods.") and hasattr(module, "pictures"):
            monkeypatch.setattr(module, "pictures", lambda model, x: np.asarray(x))


def run(name, count, **given):
    method = de.methods()[name]
    half = np.zeros((count, 6, 6), np.float32)
    half[:, :, 3:] = 1
    texts = dict(source=["a cat on a mat"] * count, prompt=["a dog on a mat"] * count)
    rest = dict(seed=[3] * count, steps=4, paste=False, mask=half, inner=2, proximal="l0",
                posterior="mean", height=6, width=6) | texts | given  # fmt: skip
    if name in ("prompt_to_prompt", "pnp_inversion"):
        rest |= dict(height=None, width=None)
    if name == "inst":
        rest |= dict(style="toy", prompt=["a dog on *"] * count)
    known = {k: v for k, v in rest.items() if k in method.parameters}
    images = None if method.start == "noise" else np.repeat(a_picture(), count, axis=0)
    return method.function(toy(), images, **method.complete(known))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_different_numbers_is_a_loop(name):
    declared = de.methods()[name].per_image
    given = {k: PAIRS[k] for k in declared}
    batch = run(name, 2, **given)
    for i in range(2):
        alone = run(name, 1, **{k: v[i] for k, v in given.items()})
        np.testing.assert_allclose(batch[i], alone[0], atol=3e-4, rtol=1e-4)
    assert np.abs(batch[0] - batch[1]).max() > 1e-3
