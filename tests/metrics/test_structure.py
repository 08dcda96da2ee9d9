"""DINO's ViT against the official vectors, its readers, and the distance of layouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from diffedit_jax.errors import UserError
from diffedit_jax.metrics import dino_features, dino_structure_distance, load_dino, self_similarity
from diffedit_jax.metrics.prepare import PIE_BENCH, STRUCTURE

from .golden import GOLDEN, nchw, nhwc, relative_l2, vectors, weights

NEAR = {"atol": 5e-5, "rtol": 5e-5}
SMALL = PIE_BENCH.but(size=32), STRUCTURE.but(size=32)


@pytest.fixture(scope="module")
def dino():
    return load_dino(GOLDEN / "dino_tiny.safetensors", heads=3)


@pytest.fixture(scope="module")
def them():
    return vectors("dino_vit")


def test_the_official_network(dino, them):
    found, seen = dino(nhwc(them["in.x"]))
    np.testing.assert_allclose(found, them["out.cls_normed"], **NEAR)
    np.testing.assert_allclose(seen["tokens"], them["out.tokens_in"], **NEAR)
    np.testing.assert_allclose(seen["qkv"], them["out.qkv_last"], **NEAR)
    np.testing.assert_allclose(seen["keys"], them["out.keys_last"], **NEAR)
    for block in (0, 5, 10, 11):
        np.testing.assert_allclose(seen["blocks"][block], them[f"out.block.{block:02}"], **NEAR)


@pytest.mark.parametrize("size", ["40x40", "48x32"])
def test_positions_at_other_sizes(dino, them, size):
    rows, columns = (int(n) // 8 for n in size.split("x"))
    bound = dino.module.bind({"params": dino.params})
    np.testing.assert_allclose(bound.positions(rows, columns), them[f"out.pos_{size}"], atol=1e-5)
    _, seen = dino(nhwc(them[f"in.x_{size}"]))
    np.testing.assert_allclose(seen["blocks"][11], them[f"out.block.11_{size}"], **NEAR)


def test_the_official_gradient(dino, them):
    def value(x):
        _, seen = dino(x)
        own, keys = seen["blocks"][11][0, 0], seen["keys"][0]
        return (own * them["in.cot_cls"]).sum() + (keys * them["in.cot_keys"]).sum()

    slope = jax.grad(value)(nhwc(them["in.x"][:1]))
    assert relative_l2(nchw(slope), them["grad.x"]) < 1e-3


def test_every_layout_of_the_file_is_the_same_network(dino, them, tmp_path):
    torch = pytest.importorskip("torch")
    own = {k: torch.from_numpy(v) for k, v in weights("dino_tiny").items()}
    torch.save(own, tmp_path / "plain.pth")
    wrapped = {f"module.backbone.{k}": v for k, v in own.items()}
    head = {"module.head.mlp.0.weight": torch.zeros(3, 3)}
    student = {k: v * 0 for k, v in wrapped.items()}
    both = {"teacher": wrapped | head, "student": student | head, "epoch": 3, "optimizer": {}}
    torch.save(both, tmp_path / "training.pth")
    for name in ("plain.pth", "training.pth"):
        again = load_dino(tmp_path / name, heads=3)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), dino.params,
                                         again.params))  # fmt: skip


def test_transformers_names_through_its_own_model(tmp_path, highest):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
                                    intermediate_size=96, image_size=32, patch_size=8,
                                    layer_norm_eps=1e-6)  # fmt: skip
    model = transformers.ViTModel(config).eval()
    model.save_pretrained(tmp_path)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        theirs = model(x).last_hidden_state[:, 0]
    np.testing.assert_allclose(load_dino(tmp_path, heads=3)(nhwc(x.numpy()))[0], theirs, **NEAR)


def test_self_similarity_is_cosines():
    keys = np.random.default_rng(0).normal(size=(3, 5, 4))
    keys[0, 2] = 0
    found = self_similarity(jnp.asarray(keys, jnp.float32))
    unit = keys / np.maximum(np.linalg.norm(keys, axis=-1, keepdims=True), 1e-30)
    np.testing.assert_allclose(found, unit @ unit.transpose(0, 2, 1), atol=1e-6)
    slope = jax.grad(lambda k: self_similarity(k).sum())(jnp.asarray(keys, jnp.float32))
    assert np.isfinite(slope).all()


def test_the_distance_as_pie_benchs_script_has_it(dino):
    """Its own operations in torch, on the keys of our network, values up to 255 included."""
    torch = pytest.importorskip("torch")
    a, b = np.random.default_rng(1).integers(0, 256, (2, 48, 40, 3), np.uint8)
    layouts = []
    for x in (a, b):
        y = torch.from_numpy(np.moveaxis(x, -1, 0)).float()[None]  # 0-255, as the script leaves it
        y = torch.nn.functional.interpolate(y, (38, 32), mode="bilinear", align_corners=False)
        y = y - torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        y = y / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        keys = torch.from_numpy(np.array(dino(nhwc(y.numpy()))[1]["keys"]))[0]
        length = keys.norm(dim=1, keepdim=True)
        layouts.append(keys @ keys.T / torch.clamp(length @ length.T, min=1e-8))
    wanted = torch.nn.functional.mse_loss(*layouts)
    np.testing.assert_allclose(dino_structure_distance(a, b, dino, SMALL[0]), wanted, atol=1e-6)
    assert float(wanted) > 1e-5


def test_layouts_of_equal_pictures(dino):
    a, b = np.random.default_rng(0).random((2, 2, 32, 32, 3))
    for preparation in SMALL:
        assert (np.asarray(dino_structure_distance(a, a, dino, preparation)) == 0).all()
        found = dino_structure_distance(a, b, dino, preparation)
        assert found.shape == (2,) and (found > 0).all()
    slope = jax.grad(lambda x: dino_structure_distance(x, b, dino, SMALL[1]).sum())(jnp.asarray(a))
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_features_are_the_normed_class_token(dino, them):
    found = dino_features(np.asarray(nhwc(them["in.x"])), dino, lambda x: x)
    np.testing.assert_allclose(found, them["out.cls_normed"], **NEAR)


def test_mistakes_get_one_line(dino, tmp_path):
    x = np.zeros((32, 32, 3))
    with pytest.raises(UserError, match="pie_bench or corrected"):
        dino_structure_distance(x, x, dino, "official")
    with pytest.raises(UserError, match="does not exist"):
        load_dino(tmp_path / "none.pth")
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no DINO"):
        load_dino(tmp_path / "other.safetensors")
