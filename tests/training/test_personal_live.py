"""One training step beside torch: what the diffusers scripts compute, on the same tiny networks."""

import jax
import numpy as np
import pytest

from diffedit_jax.checkpoints.load import export
from diffedit_jax.training.conditions import text_condition
from diffedit_jax.training.tasks.shared import frozen
from tests.training import golden

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

PLACE = golden.GOLDEN / "12_pipelines" / "sd1"


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 650, (3, 77)).astype(np.int32)
    latent, noise = (rng.normal(size=(3, 8, 8, 4)).astype(np.float32) for _ in range(2))
    return {"ids": ids, "latent": latent, "noise": noise, "t": np.int32([20, 400, 990])}


def theirs(batch, kind, gamma):
    """(loss per example, {name: gradient of the mean}) by diffusers' networks and scheduler."""
    from diffusers.training_utils import compute_snr
    from transformers import CLIPTextModel

    unet = diffusers.UNet2DConditionModel.from_pretrained(PLACE / "unet")
    text = CLIPTextModel.from_pretrained(PLACE / "text_encoder")
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind
    )
    x0, noise = (torch.from_numpy(np.moveaxis(batch[n], -1, 1).copy()) for n in ("latent", "noise"))
    t = torch.from_numpy(batch["t"]).long()
    context = text(torch.from_numpy(batch["ids"]).long())[0]
    found = unet(scheduler.add_noise(x0, noise, t), t, context).sample
    target = noise if kind == "epsilon" else scheduler.get_velocity(x0, noise, t)
    snr = compute_snr(scheduler, t)
    least = torch.minimum(snr, torch.full_like(snr, gamma))
    weight = least / snr if kind == "epsilon" else least / (snr + 1)
    loss = ((found - target) ** 2).mean((1, 2, 3)) * weight
    loss.mean().backward()
    grads = {f"unet.{k}": p.grad.numpy() for k, p in unet.named_parameters() if p.grad is not None}
    key = "embeddings.token_embedding.weight"
    table = dict(text.named_parameters())
    grads["text"] = next(p.grad.numpy() for k, p in table.items() if k.endswith(key))
    return loss.detach().numpy(), grads


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_losses_and_gradients_are_those_of_the_script(batch, kind, highest):
    model = golden.tiny()
    model = model.replace(denoiser=model.denoiser.replace(kind=kind))
    objective = golden.objective(model, min_snr=5.0)
    condition = text_condition(model.texts[0].module)

    def loss(params):
        found, _ = objective(params, condition(params, batch, None), batch, jax.random.key(0), 0)
        return found.mean(), found

    (_, losses), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(frozen(model))
    wanted, theirs_grads = theirs(batch, kind, 5.0)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    own = {f"unet.{k}": x for k, x in export(grads["unet"]).items()}
    own["text"] = np.asarray(grads["text_encoder"]["embeddings"]["token_embedding"]["embedding"])
    size = max(np.abs(x).max() for x in theirs_grads.values())
    for name, x in theirs_grads.items():
        np.testing.assert_allclose(own[name].reshape(x.shape), x, rtol=1e-3, atol=1e-5 * size)
