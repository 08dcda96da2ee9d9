"""The SD 1.5 UNet at its full size with random weights, against diffusers: minutes and 8 GB."""

import gc
import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.models import UNet

from .reference import GOLDEN, nhwc, relative, tree_from_torch


def reference_run(config, x, t, text):
    """Torch's output, and its weights once torch has let go of them."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel.from_config(config).eval()
    with torch.no_grad():
        out = model(torch.from_numpy(x), t, torch.from_numpy(text)).sample.numpy()
        state = {key: value.numpy() for key, value in model.state_dict().items()}
    return out, state


@pytest.mark.heavy
def test_stable_diffusion_1_5_at_full_size():
    record = GOLDEN / "16_key_shapes" / "sd15_unet.json.gz"
    config = json.loads(gzip.decompress(record.read_bytes()))["config"]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 4, 64, 64)).astype(np.float32)
    text = rng.normal(size=(1, 77, 768)).astype(np.float32)
    theirs, state = reference_run(config, x, 481, text)
    params = {"params": jax.tree.map(jnp.asarray, tree_from_torch(state))}
    del state
    gc.collect()
    unet = UNet.from_config(config)
    ours, _ = jax.jit(unet.apply)(params, nhwc(x), 481, jnp.asarray(text))
    assert relative(ours, nhwc(theirs)) < 2e-5
