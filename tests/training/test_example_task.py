"""Paint by Example's training: condition, loss beside torch, data, resume, and its product."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from diffedit_jax.bundles import load
from diffedit_jax.errors import UserError
from diffedit_jax.methods.paint_by_example import channels
from diffedit_jax.training import boxed_pictures, conditions, loop
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.examples import masked
from diffedit_jax.training.launch import load_config
from diffedit_jax.training.products import write_model
from diffedit_jax.training.settings import complete
from diffedit_jax.training.step import total_loss
from diffedit_jax.training.tasks import paint_by_example as task
from diffedit_jax.training.tasks.shared import learned
from tests.golden_models import exemplar_folder
from tests.training import golden

CONFIGS = golden.GOLDEN.parents[2] / "configs"
ALL = r"exemplar/(?!model/).*|unet/.*"


def config_of(**changes):
    config = complete(load_config(CONFIGS / "train_paint_by_example.py"))
    small = dict(steps=2, batch=4, warmup=0, examples=6, save_every=50, log_every=10, trained=ALL)
    config.update(small | changes)
    return config


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(exemplar_folder(tmp_path_factory.mktemp("exemplar")))


def batch_of(model, seed=0, n=4):
    rng = np.random.default_rng(seed)
    side, shape = model.exemplar.module.image_size, (n, 8, 8, 4)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "latent": normal(*shape), "masked": normal(*shape),
        "deviation": np.zeros(shape, np.float32), "masked_deviation": np.zeros(shape, np.float32),
        "keep": rng.random((n, 8, 8, 1)).astype(np.float32), "shown": normal(n, side, side, 3),
        "noise": normal(*shape), "t": rng.integers(0, 1000, n).astype(np.int32),
        "dropped": np.arange(n) % 3 == 1,
    }  # fmt: skip


def test_the_condition_is_what_the_method_asks_with(model):
    batch = batch_of(model)
    made = jax.jit(conditions.example_condition(model.exemplar.module, drop=0.2))
    cond = made({"exemplar": model.exemplar.params}, batch, jax.random.PRNGKey(0))
    told, null = model.example(jnp.asarray(batch["shown"])).text, model.null(4).text
    dropped = batch["dropped"]
    np.testing.assert_array_equal(cond.text[dropped], null[dropped])
    np.testing.assert_allclose(cond.text[~dropped], told[~dropped], atol=1e-5)
    wanted = channels(batch["masked"], batch["keep"], "paint_by_example")
    np.testing.assert_array_equal(cond.channels, wanted)


def test_the_posterior_of_the_masked_picture_is_sampled(model):
    batch = batch_of(model) | {"masked_deviation": np.full((4, 8, 8, 4), 0.5, np.float32)}
    made = jax.jit(conditions.example_condition(model.exemplar.module, drop=0.2))
    params = {"exemplar": model.exemplar.params}
    draws = [made(params, batch, jax.random.PRNGKey(k)).channels[..., :4] for k in range(3)]
    noise = (np.asarray(draws) - batch["masked"]) / 0.5
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1
    assert np.abs(noise[0] - noise[1]).max() > 0.5


@pytest.mark.parametrize("together", [0, 1, 4])
def test_a_fifth_of_the_examples_is_left_out(together):
    keys = jax.random.split(jax.random.PRNGKey(0), 4000)
    found = np.asarray(
        jax.vmap(lambda key: conditions.drawn_together(key, 10, 0.2, together))(keys)
    )
    groups = {0: [0, 10], 1: list(range(11)), 4: [0, 4, 8, 10]}[together]
    for start, stop in zip(groups[:-1], groups[1:], strict=True):
        assert (found[:, start:stop] == found[:, start : start + 1]).all()
        share = found[:, start].mean()
        assert abs(share - 0.2) < 4 * np.sqrt(0.16 / 4000)
    if together != 0:
        assert abs(np.corrcoef(found[:, 0], found[:, -1])[0, 1]) < 0.07


@pytest.fixture(scope="module")
def one_step(model):
    """(loss, gradients) of one step with `batch_of`, as one program."""
    config, made = config_of(), task.example_task(model, config_of())
    trained, keys = made.selection.init(made.params, None), jax.random.split(jax.random.PRNGKey(0))
    loss = lambda x: total_loss(made, config)(x, made.params, batch_of(model), keys, 0)[0]  # noqa: E731
    with jax.default_matmul_precision("highest"):
        return jax.jit(jax.value_and_grad(loss))(trained)


def test_one_steps_loss_is_the_official_objective(model, one_step):
    """torch: mean |eps - UNet([z_t, masked, keep], t, c or learned vector)|^2 per example."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    from diffusers.pipelines.deprecated.paint_by_example.image_encoder import (
        PaintByExampleImageEncoder,
    )
    from transformers import CLIPVisionConfig

    folder, batch = model.origin["source"], batch_of(model)
    unet = diffusers.UNet2DConditionModel.from_pretrained(f"{folder}/unet")
    place = f"{folder}/image_encoder"
    encoder = PaintByExampleImageEncoder.from_pretrained(
        place, config=CLIPVisionConfig.from_pretrained(place)
    )
    schedule = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012,
                                       beta_schedule="scaled_linear")  # fmt: skip
    given = {k: torch.from_numpy(np.asarray(v)) for k, v in batch.items()}
    given = {k: v.permute(0, 3, 1, 2) if v.ndim == 4 else v for k, v in given.items()}
    with torch.no_grad():
        noisy = schedule.add_noise(given["latent"], given["noise"], given["t"])
        told, null = encoder(given["shown"], return_uncond_vector=True)
        told[given["dropped"]] = null
        seen = torch.cat([noisy, given["masked"], given["keep"]], 1)
        found = unet(seen, given["t"], told).sample
        wanted = torch.nn.functional.mse_loss(found, given["noise"]).item()
    assert float(one_step[0]) == pytest.approx(wanted, rel=2e-4)


def test_what_is_trained_and_what_has_no_say(one_step):
    """All but CLIP and the autoencoder; with one token, queries and keys get no gradient."""
    found = one_step[1]
    assert set(found) == {"unet", "exemplar"}
    assert set(found["exemplar"]) == {"mapper", "final_layer_norm", "proj_out", "uncond_vector"}
    for part in found["exemplar"].values():
        assert max(np.abs(x).max() for x in jax.tree.leaves(part)) > 0
    block = found["unet"]["mid_block"]["attentions_0"]["transformer_blocks_0"]
    still = (block["attn2"]["to_q"], block["attn2"]["to_k"], block["norm2"])
    assert max(np.abs(x).max() for x in jax.tree.leaves(still)) < 1e-7
    assert np.abs(block["attn2"]["to_v"]["kernel"]).max() > 1e-5


def test_a_text_to_image_model_becomes_one_that_paints_by_example(tmp_path):
    base = golden.tiny()
    model = task.by_example(base, "emoji", seed=0)
    assert model.in_channels == 9 and not model.texts and model.exemplar is not None
    assert task.by_example(model, "emoji", seed=1) is model
    kernel = model.denoiser.params["conv_in"]["kernel"]
    np.testing.assert_array_equal(kernel[:, :, :4], base.denoiser.params["conv_in"]["kernel"])
    assert not np.any(kernel[:, :, 4:])
    from diffedit_jax.metrics.clip import load_clip

    pixels = jnp.asarray(batch_of(model)["shown"])
    encoder = model.exemplar
    see = jax.jit(partial(encoder.module.apply, method=lambda m, x: m.model(x)[1]["pooled"]))
    seen = see({"params": encoder.params}, pixels)
    np.testing.assert_allclose(seen, load_clip("emoji").vision(pixels)[1]["pooled"], atol=1e-5)
    inpaint = load(golden.GOLDEN / "12_pipelines" / "inpaint")
    with pytest.raises(UserError, match="9 channels"):
        task.by_example(inpaint, "emoji", seed=0)


def test_the_hole_is_grey_and_its_latent_is_of_that_picture(model, tmp_path):
    config = config_of(silhouettes=0.5, invented=0.5)
    found = task.examples_of(model, config, None, tmp_path)
    ways = dict(curved=0.5, jitter=1, silhouettes=0.5, invented=0.5)
    drawn = task.scene_examples(config.seed, shown=28, **ways)
    first = next(drawn)
    part = masked(first.picture, first.keep)
    np.testing.assert_array_equal(part[first.keep == 0], 127.5)
    np.testing.assert_array_equal(part[first.keep == 1], first.picture[first.keep == 1])
    for row, picture in ((0, first.picture), (2, part)):
        latent = model.encode(jnp.asarray(picture[None] / 127.5 - 1, jnp.float32))[0]
        np.testing.assert_allclose(found.latents[0, row], latent, atol=5e-3)
    assert (found.latents[:, 1] > 0).all() and found.keep.shape == (6, 16, 16, 1)
    again = task.examples_of(model, config, None, tmp_path)
    np.testing.assert_array_equal(again.shown, found.shown)


def test_batches_are_functions_of_seed_and_step(model, tmp_path):
    found = task.examples_of(model, config_of(), None, tmp_path)
    make, same, other = (found.batches(5, seed) for seed in (3, 3, 4))
    for name, values in make(2).items():
        np.testing.assert_array_equal(values, same(2)[name])
        assert values.shape[0] == 5 and values.dtype == np.float32
    assert any((make(2)[k] != other(2)[k]).any() for k in ("latent", "shown"))
    assert any((make(2)[k] != make(3)[k]).any() for k in ("latent", "shown"))


@pytest.fixture
def compiled_once(monkeypatch):
    """Runs of one test share their step: same task and constant rate, so the same program."""
    make, made = loop.make_step, []

    def step(*about, **options):
        made.append(make(*about, **options))
        return made[0]

    monkeypatch.setattr(loop, "make_step", step)


@pytest.mark.slow
def test_a_run_that_goes_on_is_bit_equal_to_one_that_does_not_stop(model, compiled_once, tmp_path):
    ends = []
    for name, stops in (("whole", (2,)), ("parts", (1, 2))):
        for steps in stops:
            config = config_of(steps=steps, schedule="constant", trained=r"exemplar/(?!model/).*")
            examples = task.examples_of(model, config, None, tmp_path / name)
            data = Stepped(examples.batches(config.batch, config.seed))
            made = task.example_task(model, config)
            state = loop.fit(made, data, config, tmp_path / name, quiet=True)
        ends.append(learned(state))
    jax.tree.map(np.testing.assert_array_equal, *ends)
    before = model.exemplar.params["uncond_vector"]
    assert np.abs(ends[0]["exemplar"]["uncond_vector"] - before).max() > 0


def test_what_was_trained_is_written_and_read_again(model, tmp_path):
    trained = task.example_task(model, config_of()).selection.init(
        {"unet": model.denoiser.params, "exemplar": model.exemplar.params}, None
    )
    trained = jax.tree.map(lambda x: x + 0.25, trained)
    write_model(task.with_trained(model, trained), tmp_path / "model", "float32")
    back = load(tmp_path / "model")
    for kept, name in ((back.denoiser.params, "unet"), (back.exemplar.params, "exemplar")):
        flat, wanted = flatten_dict(kept), flatten_dict(trained[name])
        for path, x in wanted.items():
            np.testing.assert_array_equal(flat[path], x)
    jax.tree.map(np.testing.assert_array_equal, back.exemplar.params["model"],
                 model.exemplar.params["model"])  # fmt: skip


PICTURES = {"a.png": (60, 90), "b.png": (70, 50)}
BOXES = {"a.png": [(10, 20, 40, 50), (50, 5, 85, 40)], "b.png": [(5, 10, 45, 60)]}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "data"
    place.mkdir()
    rng = np.random.default_rng(0)
    for name, (height, width) in PICTURES.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(place / name)
    return place


def write_csv(folder, rows=None):
    rows = rows or [(name, *box) for name, own in BOXES.items() for box in own]
    lines = ["picture,left,top,right,bottom", *(",".join(map(str, row)) for row in rows)]
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")


def coco():
    images = [{"id": k, "file_name": name} for k, name in enumerate(BOXES)]
    rows = [
        {"image_id": k, "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]]}
        for k, own in enumerate(BOXES.values())
        for b in own
    ]
    return {"images": images, "annotations": rows}


@pytest.mark.parametrize("form", ["csv", "json", "coco"])
def test_three_forms_of_a_list_say_the_same(folder, form):
    if form == "csv":
        write_csv(folder)
    else:
        (folder / "boxes.json").write_text(json.dumps(coco() if form == "coco" else BOXES))
    found = boxed_pictures.boxed_files(folder)
    assert {each.file.name: list(each.boxes) for each in found} == BOXES


def test_examples_of_a_folder_are_of_its_boxes(folder):
    write_csv(folder)
    stream = boxed_pictures.picture_examples(
        boxed_pictures.boxed_files(folder), 0, size=32, shown=28, curved=0.0, jitter=5, margin=0
    )
    crops = {}
    for name, own in BOXES.items():
        whole = Image.open(folder / name)
        for box in own:
            crops[np.array(whole.crop(box).resize((28, 28), 3)).tobytes()] = box
    seen = set()
    for _ in range(30):
        each = next(stream)
        assert each.picture.shape == (32, 32, 3) and each.keep.shape == (32, 32)
        assert each.keep.min() == 0 and 0 <= each.keep.max() <= 1
        seen.add(crops[each.shown.tobytes()])
    assert len(seen) == 3


def test_pictures_with_boxes_that_cannot_be_read_are_named_or_left_out(folder):
    write_csv(folder)
    (folder / "a.png").write_text("not a picture")
    ways = dict(size=32, shown=28, curved=0.0, jitter=5, margin=0)
    listed = boxed_pictures.boxed_files(folder)
    with pytest.raises(UserError, match=r"a\.png.*skip_broken=True"):
        list(zip(range(20), boxed_pictures.picture_examples(listed, 0, **ways), strict=False))
    stream = boxed_pictures.picture_examples(listed, 0, skip_broken=True, **ways)
    with pytest.warns(UserWarning, match=r"left out: .*a\.png"):
        found = [next(stream) for _ in range(10)]
    whole = Image.open(folder / "b.png").crop(BOXES["b.png"][0]).resize((28, 28), 3)
    assert all((one.shown == np.array(whole)).all() for one in found)


@pytest.mark.parametrize(
    "rows, message",
    [
        ([("a.png", 10, 20, 95, 50)], "90x60"),
        ([("a.png", 10, 20, 10, 50)], "empty"),
        ([("a.png", "x", 20, 10, 50)], "line 2.*no box"),
        ([("c.png", 0, 0, 9, 9)], "c.png is missing"),
        ([("a.png", 0, 0, 90, 60)], "no picture has a box"),
    ],
)
def test_bad_boxes_are_refused_in_one_line(folder, rows, message):
    write_csv(folder, rows)
    with pytest.raises(UserError, match=message):
        listed = boxed_pictures.boxed_files(folder)
        next(boxed_pictures.picture_examples(listed, 0, size=32, shown=28, curved=0.5, jitter=5,
                                             margin=1))  # fmt: skip


def test_a_folder_without_a_list_or_with_an_empty_one_is_refused(folder):
    with pytest.raises(UserError, match="boxes.csv"):
        boxed_pictures.boxed_files(folder)
    (folder / "boxes.json").write_text("{}")
    with pytest.raises(UserError, match="empty"):
        boxed_pictures.boxed_files(folder)
    (folder / "boxes.csv").write_text("file,x\na.png,1\n")
    with pytest.raises(UserError, match="picture,left,top,right,bottom"):
        boxed_pictures.boxed_files(folder)
