"""Paint by Example: a text-to-image model learns to fill a hole with what a picture shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from ...bundles.loading import ASSETS, EMBEDDED
from ...bundles.stable_diffusion import Coder
from ...checkpoints.clip_folder import read_clip
from ...checkpoints.load import load
from ...errors import UserError
from ...models import Exemplar
from ..agree import on_host
from ..boxed_pictures import boxed_files, picture_examples
from ..boxed_scenes import scene_examples
from ..conditions import example_condition
from ..data import WHOLE, Share, Stepped
from ..example_streams import folder_stream, scene_stream
from ..examples import Examples, prepared
from ..kept import digest, stamp
from ..selections import Paths
from ..sharding import NETWORK_RULES
from ..task import Task
from .instruct_pix2pix import with_unet
from .shared import autoencoder, encoder, objective_of, with_channels

_MORE = 5  # channels: the latent of the picture without its hole, and the mask


def by_example(model: Any, clip: str | Path, seed: int) -> Any:
    """The model with an encoder of example pictures in place of its text encoder.

    The encoder is CLIP's image tower and a new mapper; the UNet takes five more channels, ignored
    at first. A model that is told by examples already is returned as it is, and training goes on.

    Args:
      clip: "emoji", or whatever `read_clip` takes.
      seed: of the mapper and of the learned vector that stands for no example.

    Raises: UserError for a UNet of other channels.
    Source: Yang et al. 2022, section 3.2.
    """
    if model.exemplar is not None:
        return model
    if model.in_channels != model.latent_channels:
        raise UserError(
            f"paint_by_example cannot start from a UNet of {model.in_channels} channels"
        )
    wide = with_channels(model, _MORE, "paint_by_example")
    unet = wide.denoiser.module
    encoder, config = new_encoder(clip, unet.context_width, seed, unet.dtype)
    configs = {k: v for k, v in wide.configs.items() if not k.startswith("text_encoder")}
    configs["image_encoder"] = config
    return wide.replace(
        texts=(), tokenizers=(), exemplar=encoder, configs_json=json.dumps(configs, sort_keys=True)
    )


def new_encoder(
    clip: str | Path, width: int, seed: int, dtype: Any = jax.numpy.float32
) -> tuple[Coder, dict]:
    """(the encoder with CLIP's image tower and a random mapper, its config); computes in dtype."""
    embedded = isinstance(clip, str) and clip in EMBEDDED
    parts = read_clip(ASSETS / clip / "clip" if embedded else clip)
    config = {**parts.config["vision_config"], "projection_dim": width}
    module = Exemplar.from_config(config, dtype=dtype)
    side = module.image_size
    params = jax.jit(module.init)(jax.random.PRNGKey(seed), jax.numpy.zeros((1, side, side, 3)))
    tower = {k: v for k, v in parts.vision.items() if k != "visual_projection.weight"}
    seen = load(params["params"]["model"], tower, f"the image tower of {parts.where}")
    return Coder(params={**params["params"], "model": seen}, module=module), config


def example_task(model: Any, config: Any) -> Task:
    """UNet, mapper, learned vector and, if config.trained says so, CLIP's tower learn.

    config: drop (share of the examples that are left out), together (rows that are left out
    together), trained (pattern over the paths of parameters; published, the tower stays as it is:
    exemplar/(?!model/).*|unet/.*), and what `objective_of` reads.
    """
    networks = {"unet": model.denoiser.params, "exemplar": model.exemplar.params}
    ways = dict(drop=config.drop, together=config.together, encode=encoder(model, config))
    condition = example_condition(model.exemplar.module, **ways)
    return Task(
        "paint_by_example", networks | autoencoder(model, config), objective_of(model, config),
        Paths(config.trained), condition, NETWORK_RULES, {"t": model.schedule.train_steps},
    )  # fmt: skip


def examples_of(model: Any, config: Any, data: Path | None, out: Path) -> Examples:
    """Examples of a folder with boxes, or of rendered scenes where none is named.

    config: examples (how many are drawn and encoded), seed, curved (share of holes that are no
    boxes), jitter and margin (pixels), silhouettes and invented (of rendered scenes).
    """
    own = _ways(model, config, data)
    if data is None:
        drawn, about = scene_examples(config.seed, **own), {"pictures": "rendered"}
    else:
        listed = boxed_files(data)
        drawn = picture_examples(listed, config.seed, **own, skip_broken=config.skip_broken)
        about = {
            "pictures": stamp(each.file for each in listed),
            "boxes": digest([each.boxes for each in listed]),
        }
    about |= {"seed": config.seed, **own}
    return prepared(model, drawn, config.examples, out / "examples", about)


def example_data(
    model: Any, config: Any, data: Path | None, out: Path, share: Share = WHOLE
) -> tuple[Any, Examples]:
    """(data for `fit`, examples to look at): `examples_of`, or examples that are drawn anew.

    config: batch, cache_latents (False draws anew, and encodes in the step; `examples` is then the
    number of scenes of an epoch).
    """
    if config.get("cache_latents", True):
        examples = examples_of(model, config, data, out)
        return Stepped(examples.batches(config.batch, config.seed), share), examples
    own, leave = _ways(model, config, data), dict(skip_broken=config.skip_broken)
    stream = scene_stream(config.examples, **own)
    if data is not None:
        stream = folder_stream(data, **leave, **own)
    made = stream.data(model.factor, batch=config.batch, seed=config.seed, share=share, **leave)
    few = 4 * config.look_count  # some holes have no whole cell
    return made, stream.few(model, few, config.seed) if config.look_every else None


def _ways(model, config, data) -> dict[str, Any]:
    """How examples are drawn: of rendered scenes, or of pictures with boxes."""
    ways = dict(shown=model.exemplar.module.image_size, curved=config.curved, jitter=config.jitter)
    if data is None:
        return ways | dict(silhouettes=config.silhouettes, invented=config.invented)
    return ways | dict(size=model.size, margin=config.margin)


def with_trained(model: Any, trained: Any) -> Any:
    """The model with what was trained."""
    done = with_unet(model, trained)
    new = flatten_dict(on_host(trained["exemplar"]))
    params = unflatten_dict(flatten_dict(model.exemplar.params) | new)
    return done.replace(exemplar=model.exemplar.replace(params=params))
