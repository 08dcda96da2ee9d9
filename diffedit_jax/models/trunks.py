"""AlexNet, VGG and SqueezeNet: the trunks whose features perceptual distances compare.

Each maps [n, h, w, 3] to (last feature, {name: feature after its ReLU}). How the pixels are to be
normalised is the caller's: LPIPS and ImageNet differ. Submodules carry torchvision's indices,
`features.N`, so that its files load as they are.

Source: Krizhevsky 2014, Simonyan & Zisserman 2015 and Iandola et al. 2016; torchvision
models/alexnet.py, models/vgg.py, models/squeezenet.py.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffedit_jax.models.layers import Compute, Conv

Picture = Float[Array, "n h w 3"]
Feature = Float[Array, "n h2 w2 c"]


class AlexNet(nn.Module):
    """Features "relu1" ... "relu5"; pictures need 31 pixels a side.

    Pooling is 3x3 with stride 2, without padding.
    """

    widths: tuple[int, ...] = (64, 192, 384, 256, 256)
    compute: Compute = Compute()

    taps = ("relu1", "relu2", "relu3", "relu4", "relu5")  # what LPIPS compares
    smallest = 31

    @nn.compact
    def __call__(self, x: Picture) -> tuple[Feature, dict[str, Feature]]:
        shapes = ((0, 11, 4, 2), (3, 5, 1, 2), (6, 3, 1, 1), (8, 3, 1, 1), (10, 3, 1, 1))
        seen = {}
        for name, width, shape in zip(self.taps, self.widths, shapes, strict=True):
            index, size, stride, padding = shape
            if name in ("relu2", "relu3"):
                x = nn.max_pool(x, (3, 3), strides=(2, 2))
            layer = Conv(width, size, stride, padding, self.compute, name=f"features_{index}")
            x = seen[name] = nn.relu(layer(x))
        return x, seen


class VGG(nn.Module):
    """Features "relu1_1", "relu1_2", ...: stage and layer; pictures need 16 pixels a side.

    `depths` (2, 2, 3, 3, 3) is VGG16, (2, 2, 4, 4, 4) VGG19. Every feature is the one after its
    ReLU: torchvision's ReLU works in place, so that official code which stores a convolution's
    output compares the rectified one.
    """

    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    compute: Compute = Compute()

    smallest = 16

    @property
    def taps(self) -> tuple[str, ...]:
        """The last feature of each stage, which LPIPS compares."""
        return tuple(f"relu{stage}_{depth}" for stage, depth in enumerate(self.depths, 1))

    @nn.compact
    def __call__(self, x: Picture) -> tuple[Feature, dict[str, Feature]]:
        index, seen = 0, {}
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), 1):
            if stage > 1:
                x, index = nn.max_pool(x, (2, 2), strides=(2, 2)), index + 1
            for layer in range(1, depth + 1):
                conv = Conv(width, compute=self.compute, name=f"features_{index}")
                x = seen[f"relu{stage}_{layer}"] = nn.relu(conv(x))
                index += 2
        return x, seen


class Fire(nn.Module):
    """[E1 x, E3 x'] over the channels after squeezing to few of them; each product rectified.

    `expanded` is the width of the 1x1 and of the 3x3 convolution, so that twice as many come out.
    """

    squeezed: int
    expanded: int
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c_in"]) -> Float[Array, "n h w c_out"]:
        x = nn.relu(Conv(self.squeezed, 1, 1, 0, self.compute, name="squeeze")(x))
        pointwise = Conv(self.expanded, 1, 1, 0, self.compute, name="expand1x1")
        spatial = Conv(self.expanded, 3, 1, 1, self.compute, name="expand3x3")
        return nn.relu(jnp.concatenate([pointwise(x), spatial(x)], axis=-1))


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1: features "relu1", "fire3" ... "fire12"; pictures need 17 pixels a side.

    `fires` are (squeezed, expanded) of each block, which torchvision counts 3, 4, 6, 7, 9 to 12:
    0 is the first convolution, 2, 5 and 8 are poolings.
    """

    stem: int = 64
    fires: tuple[tuple[int, int], ...] = (
        *((16, 64), (16, 64), (32, 128), (32, 128)),
        *((48, 192), (48, 192), (64, 256), (64, 256)),
    )
    compute: Compute = Compute()

    taps = ("relu1", "fire4", "fire7", "fire9", "fire10", "fire11", "fire12")
    smallest = 17

    @nn.compact
    def __call__(self, x: Picture) -> tuple[Feature, dict[str, Feature]]:
        seen = {}
        x = seen["relu1"] = nn.relu(Conv(self.stem, 3, 2, 0, self.compute, name="features_0")(x))
        for index, widths in zip((3, 4, 6, 7, 9, 10, 11, 12), self.fires, strict=True):
            x = _pooled(x) if index in (3, 6, 9) else x
            x = seen[f"fire{index}"] = Fire(*widths, self.compute, name=f"features_{index}")(x)
        return x, seen


def _pooled(x: Feature) -> Float[Array, "n h3 w3 c"]:
    """3x3 maxima with stride 2; the last window of a side may reach over the edge (ceil_mode)."""
    over = [(0, (side - 3) % 2) for side in x.shape[1:3]]
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=over)
