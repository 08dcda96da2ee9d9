"""Textual inversion, DreamBooth and LoRA against recorded runs of the torch scripts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from diffedit_jax.checkpoints.load import export
from diffedit_jax.checkpoints.tables.names import key_of, path_of
from diffedit_jax.core.time import Schedule
from diffedit_jax.training import objectives, words
from diffedit_jax.training.conditions import kept, text_condition
from diffedit_jax.training.selections import LowRank, NewRows, Paths
from diffedit_jax.training.task import Task
from diffedit_jax.training.tasks.shared import frozen
from diffedit_jax.training.tasks.textual_inversion import with_word
from tests.training import golden

pytestmark = pytest.mark.usefixtures("highest")


def task(model, selection):
    condition = text_condition(model.texts[0].module)
    return Task("parity", frozen(model), golden.objective(model), selection, condition)


@pytest.fixture(scope="module")
def model():
    return golden.tiny()


def test_textual_inversion_rows_after_each_of_twenty_steps(model):
    data = golden.recorded("13_textual_inversion", "training")
    longer, ids = with_word(model, "<cat-toy>", 2)
    assert ids == (654, 655)
    run = task(longer, NewRows(ids, words=(540,)))
    said = longer.tokenize(["a photo of a <cat-toy>", "the photo of my <cat-toy>"])
    np.testing.assert_array_equal(said[:, :10], data["input_ids"][0][:, :10])
    rows, metrics = golden.train(run, golden.batches(data), rate=5e-3, clip=0)
    np.testing.assert_array_equal(rows[0], data["initial_rows"])
    np.testing.assert_allclose(rows, data["rows"], atol=1e-4)
    np.testing.assert_allclose([m["loss"] for m in metrics], data["loss"], atol=1e-5)


@pytest.mark.parametrize("with_text", [False, True])
def test_dreambooth_weights_after_five_steps(model, with_text):
    name = "full_with_text_encoder" if with_text else "full_unet_only"
    data = golden.recorded("14_dreambooth_lora", "training")
    run = task(model, Paths(".*" if with_text else "unet/.*"))
    weight = objectives.prior_weights(1, 1, 1.0)
    given = [{**b, "weight": weight} for b in golden.batches(data, "full_", data["full_ids"])]
    states, metrics = golden.train(run, given, rate=1e-4)
    np.testing.assert_allclose([m["loss"] for m in metrics], data[f"{name}_loss"], atol=1e-5)
    norms = [m["gradient"] for m in metrics]
    np.testing.assert_allclose(norms, data[f"{name}_grad_norm"], rtol=1e-4)
    assert_same_weights(export(states[-1]["unet"]), golden.weights(f"{name}_unet_after5"))
    if with_text:
        assert_same_weights(
            export(states[-1]["text_encoder"]), golden.weights(f"{name}_text_after5")
        )


def assert_same_weights(found, wanted, rate=1e-4, steps=5):
    """2e-5, except where a gradient is zero but for rounding: Adam makes whole steps of those."""
    wanted = {key.removeprefix("text_model."): x for key, x in wanted.items()}
    assert set(found) == set(wanted)
    loose = 0
    for key, x in wanted.items():
        off = np.abs(found[key].reshape(x.shape) - x)
        assert off.max() <= 2.1 * rate * steps, key
        loose += int((off > 2e-5).sum())
    assert loose <= 2e-3 * sum(x.size for x in wanted.values()), loose


def from_peft(weights):
    """{module path: {"down", "up"}}, nested, of a file with PEFT's names."""
    found = {}
    for key, x in weights.items():
        part, _, rest = key.partition(".")
        module, kind = rest.rsplit(".lora_", 1)
        path = "/".join([part, *path_of(f"{module}.weight")[:-1]])
        found[f"{path}/{'down' if kind.startswith('A') else 'up'}"] = x.T
    return unflatten_dict(found, sep="/")


class Started:
    """A selection that starts where a file says."""

    def __init__(self, selection, start):
        self.start, self.join = start, selection.join

    def init(self, params, key):
        return self.start


def test_lora_after_five_steps(model):
    data = golden.recorded("14_dreambooth_lora", "training")
    chosen = LowRank(rank=4, targets="attention and text")
    start = from_peft(golden.weights("lora_initial_peft_names"))
    run = task(model, Started(chosen, start))
    own = chosen.init(run.params, jax.random.PRNGKey(0))
    assert jax.tree.map(np.shape, own) == jax.tree.map(np.shape, start)
    given = [
        {**b, "weight": objectives.prior_weights(1, 1, 1.0)}
        for b in golden.batches(data, "lora_", data["lora_ids"])
    ]
    states, metrics = golden.train(run, given, rate=1e-3)
    np.testing.assert_allclose([m["loss"] for m in metrics], data["lora_loss"], atol=1e-5)
    np.testing.assert_allclose([m["gradient"] for m in metrics], data["lora_grad_norm"], rtol=1e-4)
    wanted = from_peft(golden.weights("lora_after5_peft_names"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), states[-1], wanted)
    check_outputs(model, run, chosen, wanted, data)


def check_outputs(model, run, chosen, trained, data):
    """What the adapter makes of the networks, and the merged weights."""
    joined = chosen.join(run.params, trained)
    ids = jnp.asarray(data["lora_test_ids"], jnp.int32)
    context = model.texts[0].module.apply({"params": joined["text_encoder"]}, ids)[0]
    np.testing.assert_allclose(context, data["lora_text_out"], atol=2e-5)
    x = jnp.asarray(golden.nhwc(data["lora_x"]))
    out = model.denoiser.module.apply({"params": joined["unet"]}, x, 300, context)[0]
    np.testing.assert_allclose(out, golden.nhwc(data["lora_unet_out"]), atol=2e-5)
    merged = {"": export(joined["unet"]), "_text": export(joined["text_encoder"])}
    for key in (k for k in data if k.startswith("lora_merged")):
        part, name = key.removeprefix("lora_merged").split("::")
        np.testing.assert_allclose(merged[part][name], data[key], atol=1e-6)


@pytest.mark.parametrize("name, convolutions", [("kohya_linear", 0), ("kohya_locon", 2)])
def test_kohyas_targets_and_shapes(model, name, convolutions):
    chosen = LowRank(
        rank=4, alpha=1.0, targets="transformers and text", convolutions=convolutions,
        start="kaiming",
    )  # fmt: skip
    trained = chosen.init(task(model, chosen).params, jax.random.PRNGKey(0))
    found = {}
    for path, (down, up, _) in chosen.modules(trained).items():
        key = key_of((*path.split("/")[1:], "kernel")).removesuffix(".weight").replace(".", "_")
        te = path.startswith("text_encoder")
        key = f"lora_te_text_model_{key}" if te else f"lora_unet_{key}"
        found[key] = (down.shape[-1], down.size, up.size)
    file = golden.weights(name)
    wanted = {
        key.removesuffix(".alpha"): (
            file[key.replace("alpha", "lora_down.weight")].shape[0],
            file[key.replace("alpha", "lora_down.weight")].size,
            file[key.replace("alpha", "lora_up.weight")].size,
        )
        for key in file if key.endswith(".alpha")
    }  # fmt: skip
    assert found == wanted


def test_a_fresh_adapter_changes_nothing_and_a_convolutions_delta_is_two_convolutions(model):
    chosen = LowRank(rank=2, targets="transformers", convolutions=2, start="kaiming")
    params = {"unet": model.denoiser.params}
    trained = chosen.init(params, jax.random.PRNGKey(1))
    jax.tree.map(np.testing.assert_array_equal, chosen.join(params, trained), params)
    x = jax.random.normal(jax.random.PRNGKey(2), (1, 6, 6, 4))
    down = jax.random.normal(jax.random.PRNGKey(3), (3, 3, 4, 2))
    up = jax.random.normal(jax.random.PRNGKey(4), (2, 5))
    base = {"unet": {"resnets_0": {"conv1": {"kernel": jnp.zeros((3, 3, 4, 5))}}}}
    low = {"unet": {"resnets_0": {"conv1": {"down": down, "up": up}}}}
    kernel = LowRank(convolutions=2, convolution_alpha=1.0).join(base, low)
    kernel = kernel["unet"]["resnets_0"]["conv1"]["kernel"]

    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    np.testing.assert_allclose(
        convolve(x, kernel), 0.5 * convolve(x, down) @ up, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("zero", [False, True])
def test_min_snr_weights(kind, zero):
    data = golden.recorded("15_optim", "optim")
    schedule = Schedule(zero_terminal_snr=zero)
    t = data["snr_t"]
    abar = jnp.asarray(schedule.abar)[t]
    suffix = f"{kind}{'_zero_snr' if zero else ''}"
    for gamma in (name for name in data if name.startswith(f"minsnr_{suffix}_g")):
        wanted = data[gamma]
        found = np.asarray(objectives.min_snr_weights(kind, abar, float(gamma.rsplit("_g", 1)[1])))
        finite = np.isfinite(wanted)
        np.testing.assert_allclose(found[finite], wanted[finite], rtol=1e-5)
        assert (found[~finite] == 1).all()  # the limit; the script divides zero by zero
        assert finite.all() or (kind == "epsilon" and zero and t[~finite] == 999)


def test_condition_dropout_masks():
    data = golden.recorded("07_instruct_pix2pix", "ip2p")
    for u in (0.05, 0.1):
        text, picture = kept(jnp.asarray(data["drop_r"]), u)
        np.testing.assert_array_equal(text, data[f"drop_text_kept_{u}"].astype(bool))
        np.testing.assert_array_equal(picture, data[f"drop_image_kept_{u}"].astype(bool))


MANAGER = {"one": ["star"], "three": ["star"], "two_placeholders": ["star", "at"],
           "progressive": ["star"]}  # fmt: skip
PLACEHOLDERS = {"star": 265, "at": 287}
WORDS = {"one": [13588], "three": [3086], "two_placeholders": [5988, 6714], "progressive": [6714]}


@pytest.mark.parametrize("case", MANAGER)
def test_the_originals_start_is_the_word_at_position_zero(case):
    data = golden.recorded("13_textual_inversion", "embedding_manager")
    rows = dict(zip(data["token_ids"].tolist(), data["token_rows"], strict=True))
    for name, word in zip(MANAGER[case], WORDS[case], strict=True):
        wanted = data[f"{case}_init_{name}"]
        table = np.stack([rows[word], *wanted * 0])
        params = {
            "text_encoder": {"embeddings": {
                "token_embedding": {"embedding": table},
                "position_embedding": {"embedding": data["position_embedding"]},
            }}
        }  # fmt: skip
        ids = tuple(range(1, len(table)))
        official = NewRows(ids, words=(0,), compat="official").init(params, None)
        np.testing.assert_allclose(official, wanted, atol=1e-7)
        plain = NewRows(ids, words=(0,)).init(params, None)
        np.testing.assert_allclose(plain, wanted - data["position_embedding"][0], atol=1e-6)


@pytest.mark.parametrize("case", ["one", "three", "two_placeholders"])
def test_placeholders_are_expanded_as_the_original_does(case):
    data = golden.recorded("13_textual_inversion", "embedding_manager")
    ids, vectors = data[f"{case}_ids"], {}
    for number, name in enumerate(MANAGER[case]):
        rows = data[f"{case}_param_{name}"]
        own = [100_000 + 100 * number + i for i in range(len(rows))]
        vectors |= dict(zip(own, rows, strict=True))
        ids = words.expand(ids, PLACEHOLDERS[name], own)
    rows = dict(zip(data["token_ids"].tolist(), data["token_rows"], strict=True)) | vectors
    back = {new: PLACEHOLDERS[name] for k, name in enumerate(MANAGER[case])
            for new in range(100_000 + 100 * k, 100_100 + 100 * k)}  # fmt: skip
    restored = np.vectorize(lambda i: back.get(i, i))(ids)
    np.testing.assert_array_equal(restored, data[f"{case}_ids_out"])


def test_progressive_vectors_join_one_by_one():
    data = golden.recorded("13_textual_inversion", "embedding_manager")
    rows = [500_000, 500_001, 500_002]
    whole = words.expand(data["progressive_ids"], 265, rows)
    for counter in (0, 1998, 1999, 3998, 3999, 9000):
        used = words.in_use(counter, 3, 2000)
        found = words.without(whole, rows[used:])
        wanted = data[f"progressive_ids_out_c{counter}"]
        np.testing.assert_array_equal(np.where(found >= 500_000, 265, found), wanted)
