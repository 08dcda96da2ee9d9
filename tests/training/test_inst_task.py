"""InST's training: one step beside torch, the batches, and a run from a picture to a style."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import diffedit_jax as de
from diffedit_jax.bundles.style import image_tokens, load_tower
from diffedit_jax.checkpoints.load import export, load
from diffedit_jax.errors import UserError
from diffedit_jax.models.style import StyleWord, fresh
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.launch import load_config
from diffedit_jax.training.loop import fit
from diffedit_jax.training.settings import complete
from diffedit_jax.training.tasks import inst
from diffedit_jax.training.tasks.shared import frozen, learned
from tests.training import golden

CONFIG = golden.GOLDEN.parents[2] / "configs" / "train_inst.py"
STAR = 265  # "*" in the vocabulary


@pytest.fixture(scope="module")
def model():
    return golden.tiny()


@pytest.fixture
def paintings(tmp_path):
    """A folder of two pictures that are no squares."""
    folder, rng = tmp_path / "paintings", np.random.default_rng(0)
    folder.mkdir()
    for k, size in enumerate([(20, 30, 3), (40, 33, 3)]):
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(folder / f"{k}.png")
    return folder


def config_of(**changes):
    config = complete(load_config(CONFIG))
    config.update(dict(steps=3, batch=4, save_every=10, log_every=10, inner=32) | changes)
    return config


@pytest.mark.parametrize("tokens", [1, 5])
def test_one_step_is_that_of_torch(model, tokens, highest):
    """Loss and gradients of the module; the text encoder and the UNet are diffusers' own."""
    torch = pytest.importorskip("torch")
    from tests.torch_style import Attentions

    torch.manual_seed(0)
    theirs = Attentions().eval()
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 650, (3, 77)).astype(np.int32)
    ids[:, 4], ids[1, 9] = STAR, STAR
    latent, noise = (rng.normal(size=(3, 8, 8, 4)).astype(np.float32) for _ in range(2))
    seen = rng.normal(size=(3, tokens, 16)).astype(np.float32)
    t = np.int32([20, 400, 990])
    batch = {"ids": ids, "latent": latent, "noise": noise, "t": t, "tokens": seen}
    module = StyleWord(16, 16, inner=32)
    start = fresh(module, jax.random.key(0))
    own = load(start, {k: x.numpy() for k, x in theirs.state_dict().items()}, "torch")
    condition = inst.style_condition(model.texts[0].module, module, STAR)
    objective = golden.objective(model)

    def loss(style):
        params = {**frozen(model), "style": style}
        errors, _ = objective(params, condition(params, batch, None), batch, jax.random.key(0), 0)
        return errors.mean()

    found, grads = jax.jit(jax.value_and_grad(loss))(own)
    wanted = their_loss(torch, theirs, batch)
    wanted.backward()
    np.testing.assert_allclose(found, wanted.item(), rtol=2e-5)
    size = max(float(p.grad.abs().max()) for p in theirs.parameters())
    mine = export(grads)
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(mine[name], p.grad.numpy(), rtol=1e-3, atol=1e-5 * size)


def their_loss(torch, module, batch):
    diffusers = pytest.importorskip("diffusers")
    from transformers import CLIPTextModel

    place = golden.GOLDEN / "12_pipelines" / "sd1"
    unet = diffusers.UNet2DConditionModel.from_pretrained(place / "unet")
    text = CLIPTextModel.from_pretrained(place / "text_encoder")
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    ids, t = (torch.from_numpy(batch[name]).long() for name in ("ids", "t"))
    words = module(torch.from_numpy(batch["tokens"]))[:, :1]
    table = next(m for k, m in text.named_modules() if k.endswith("token_embedding"))
    table.register_forward_hook(lambda m, i, out: torch.where((ids == STAR)[..., None], words, out))
    x0, noise = (torch.from_numpy(np.moveaxis(batch[n], -1, 1).copy()) for n in ("latent", "noise"))
    found = unet(scheduler.add_noise(x0, noise, t), t, text(ids)[0]).sample
    return ((found - noise) ** 2).mean()


def test_batches_hold_the_tokens_of_the_very_picture_mirrored_or_not(model, paintings):
    config = config_of(flip=0.5, batch=8, tokens="patches")
    shown = inst.paintings(model, config, paintings)
    assert shown.tokens.shape == (2, 2, 65, 128)  # the embedded CLIP's 64 patches and its pool
    make = inst.style_batches(model, config, shown)
    batch, seen = make(0), set()
    np.testing.assert_array_equal(batch["ids"], np.repeat(model.tokenize(["*"]), 8, 0))
    for tokens, latent in zip(batch["tokens"], batch["latent"], strict=True):
        at = [ij for ij in np.ndindex(2, 2) if np.array_equal(shown.tokens[ij], tokens)]
        assert len(at) == 1
        np.testing.assert_array_equal(latent, shown.mean[at[0]])
        seen.add(at[0])
    assert len(seen) > 2
    whole = Image.open(paintings / "1.png").resize((model.size, model.size), Image.BICUBIC)
    mirrored = np.ascontiguousarray(np.array(whole)[:, ::-1])
    own = image_tokens(load_tower("emoji"), [mirrored], tokens="patches")[0]
    np.testing.assert_allclose(shown.tokens[1, 1], own, atol=1e-5)


@pytest.mark.slow
def test_a_picture_becomes_a_style_that_edits(model, paintings, tmp_path):
    config = config_of(rate=1e-2)
    (paintings / "0.png").unlink()
    shown = inst.paintings(model, config, paintings)
    style = inst.fresh_style(model, config, shown)
    make = inst.style_batches(model, config, shown)
    task, now = inst.style_task(model, config, style), inst.styled(style, shown)
    state = fit(task, Stepped(make), config, tmp_path / "out", quiet=True)
    path = tmp_path / "style.safetensors"
    inst.write_style(path, style, learned(state), shown)
    found = model.learned_style(path)
    table = now(model, learned(state)).texts[0].params["embeddings"]["token_embedding"]["embedding"]
    np.testing.assert_allclose(table[STAR], found.vector, atol=1e-6)  # what a look draws with
    assert (found.word, found.tower, found.coder.module.inner) == ("*", "emoji", 32)
    own = style.coder.module.apply({"params": learned(state)["style"]}, shown.tokens[:, 0])
    np.testing.assert_allclose(found.vector, own[0, 0], atol=1e-5)
    before = style.coder(jnp.asarray(shown.tokens[:, 0]))[0, 0]
    assert np.abs(np.asarray(found.vector) - before).max() > 1e-3
    whole = np.array(
        Image.open(paintings / "1.png").resize((model.size, model.size), Image.BICUBIC)
    )
    given = dict(style=str(path), steps=3, size=32, posterior="mean")
    content = np.random.default_rng(5).integers(0, 256, (32, 32, 3), np.uint8)
    kept = de.edit(model, content, "inst", **given).image
    shown_again = de.edit(model, content, "inst", example=whole, **given).image
    assert np.abs(kept.astype(int) - shown_again).max() <= 1
    assert kept.std() > 0


@pytest.mark.parametrize(
    "changes, why",
    [(dict(tokens="all"), "tokens is one of pooled, patches"),
     (dict(heads=5), "inner=32 does not divide into 5 heads"),
     (dict(word="unheardofword"), "choose a word that is one"),
     (dict(templates="a cat"), "sentences with one {}"),
     (dict(tower="nowhere"), "nowhere does not exist")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(model, paintings, changes, why):
    config = config_of(**changes)
    with pytest.raises(UserError, match=why):
        shown = inst.paintings(model, config, paintings)
        inst.fresh_style(model, config, shown)
        inst.style_batches(model, config, shown)
