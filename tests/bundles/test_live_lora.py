"""LoRA files that we write, applied by diffusers' own loader beside our merged weights."""

import numpy as np
import pytest

from diffedit_jax.bundles.adapters import module_shapes
from diffedit_jax.checkpoints.lora import Layer
from diffedit_jax.checkpoints.lora_write import write_lora

from .conftest import PIPELINES, loaded
from .test_adapters import asked, pipeline_of, theirs

PARTS = {
    "unet attention": lambda m: "attn" in m and m.startswith("unet"),
    "text": lambda m: m.startswith("text"),
    "everything": lambda m: True,
}


def random_lora(model, rank, alpha):
    """A LoRA of every module."""
    rng = np.random.default_rng(0)
    found = {}
    for module, shape in module_shapes(model).items():
        r, a = rng.integers(1, rank + 1), rng.integers(1, alpha + 1)
        down = rng.normal(size=(r, *shape[1:])).astype(np.float32)
        up = rng.normal(size=(shape[0], r, *(1 for _ in shape[2:]))).astype(np.float32)
        found[module] = Layer(down, 0.03 * up, float(a))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("layout, rank, alpha", [("diffusers", 3, 2), ("kohya", 1, 1)])
def test_diffusers_applies_the_loras_that_we_write(
    layout, rank, alpha, part, tmp_path, highest
):  # fmt: skip
    """Unmerged by its loader, merged by ours; and the change is no small one."""
    pytest.importorskip("peft")
    base = loaded("sd1")
    layers = {m: v for m, v in random_lora(base, rank, alpha).items() if PARTS[part](m)}
    write_lora(tmp_path / "a.safetensors", layers, layout=layout)
    pipeline = pipeline_of(PIPELINES / "sd1")
    x = np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)
    before = theirs(pipeline, x, 300, "a cat")
    pipeline.load_lora_weights(str(tmp_path), weight_name="a.safetensors")
    after = theirs(pipeline, x, 300, "a cat")
    model = base.with_lora(tmp_path / "a.safetensors")
    ours = asked(model, x, 300, model.text(model.tokenize(["a cat"])))
    np.testing.assert_allclose(ours, after, atol=5e-6)
    assert np.abs(after - before).max() > 1e-2
