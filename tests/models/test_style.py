"""InST's module against the official one's recorded answers, and its laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from diffedit_jax.checkpoints.load import export, load
from diffedit_jax.checkpoints.safetensors_file import read_safetensors
from diffedit_jax.models.style import StyleWord, fresh, placed
from tests.golden_models import GOLDEN

PIXEL = GOLDEN.parent / "pixel"
IDLE = {  # what one token gives no gradient to (manifest)
    *("attn1.to_q.weight", "attn1.to_k.weight", "attn1.to_v.weight", "attn1.to_out.0.weight"),
    *("attn1.to_out.0.bias", "attn2.to_q.weight", "attn2.to_k.weight"),
}

pytestmark = pytest.mark.usefixtures("highest")


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(PIXEL / "inst_attentions.npz"))


@pytest.fixture(scope="module")
def network():
    module = StyleWord(48, 48, inner=32, heads=4)
    weights = read_safetensors(PIXEL / "inst_attentions_tiny.safetensors")
    return module, load(shapes(module), weights, "golden")


def shapes(module):
    example = jax.ShapeDtypeStruct((1, 1, module.features), jnp.float32)
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x)["params"], example)


@pytest.mark.parametrize("given, wanted", [("in.e", "out.v"), ("in.e", "out.v_affine_form"),
                                           ("in.tokens", "out.tokens")])  # fmt: skip
def test_answers_are_the_official_ones(network, golden, given, wanted):
    module, params = network
    found = module.apply({"params": params}, golden[given])
    np.testing.assert_allclose(found, golden[wanted], atol=1e-5, rtol=1e-5)


def test_gradients_are_the_official_ones(network, golden):
    module, params = network

    def total(params, e):
        return (module.apply({"params": params}, e) * golden["in.cot"]).sum()

    found, of_e = jax.grad(total, (0, 1))(params, golden["in.e"])
    own = export(found) | {"e": np.asarray(of_e)}
    for name in ("e", "attn2.to_v.weight", "net.1.weight"):
        wanted = golden[f"grad.{name}"]
        assert np.linalg.norm(own[name] - wanted) <= 1e-4 * np.linalg.norm(wanted)
    assert {name for name, x in own.items() if not np.any(x)} == IDLE


def test_patches_give_every_weight_a_gradient(network, golden):
    module, params = network

    def first(params):
        return module.apply({"params": params}, golden["in.tokens"])[:, 0].sum()

    found = export(jax.grad(first)(params))
    assert all(np.any(x) for x in found.values())


def test_the_published_module_has_as_many_parameters():
    assert sum(x.size for x in jax.tree.leaves(shapes(StyleWord()))) == 3_737_856


def test_placement_is_the_official_one():
    case = dict(np.load(PIXEL / "inst_placement.npz"))
    embedded, v = (jnp.asarray(case[f"in.{name}"], jnp.float32) for name in ("embedded", "v"))
    found = placed(embedded, jnp.asarray(case["in.token_ids"]), 265, v)
    np.testing.assert_array_equal(found, case["out.embedded"].astype(np.float32))


def test_a_fresh_module_begins_as_torch_does():
    params = flatten_dict(fresh(StyleWord(64, 96, inner=32, heads=4), jax.random.key(0)))
    for path, x in params.items():
        inputs = params[(*path[:-1], "kernel")].shape[0]
        assert np.abs(x).max() <= inputs**-0.5
        assert np.std(x) == pytest.approx((3 * inputs) ** -0.5, rel=0.2)
    biases = [x for path, x in params.items() if path[-1] == "bias"]
    assert len(biases) == 3 and len({float(x[0]) for x in biases}) == 3


def test_dropout_takes_part_in_training_alone_and_keeps_the_mean(network, golden):
    """Of one token the module is affine, so the mean over draws is the answer without them."""
    module, params = network
    e = jnp.asarray(golden["in.e"][:1])

    def drawn(key):
        return module.apply({"params": params}, e, True, rngs={"dropout": key})

    many = jax.vmap(drawn)(jax.random.split(jax.random.key(0), 4000))
    still = module.apply({"params": params}, e)
    spread = np.asarray(many.std(0))
    assert spread.min() > 0
    np.testing.assert_array_less(np.abs(many.mean(0) - still), 5 * spread / np.sqrt(4000))
