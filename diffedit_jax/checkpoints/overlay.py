"""A model that is another model with some tensors changed: only those lie in its folder.

base.json {"base": name or path of the other model}; unet/config.json and a weight file with the
changed tensors, and the same for other networks; defaults.json if it recommends other numbers.
With an image_encoder/ the model is told by pictures, and its base's text encoders are left out.
"""

from pathlib import Path

from diffedit_jax.checkpoints.files import read_json
from diffedit_jax.checkpoints.folder import read_component
from diffedit_jax.checkpoints.model_folder import NETWORKS, read_defaults
from diffedit_jax.checkpoints.parts import Parts
from diffedit_jax.errors import UserError

BASE = "base.json"


def base_of(folder: Path) -> str | None:
    """The model that a folder changes; None for a folder that holds a whole model.

    Raises: UserError for a base.json that names none.
    """
    if not (folder / BASE).is_file():
        return None
    base = read_json(folder / BASE).get("base")
    if not isinstance(base, str) or not base:
        raise UserError(f'{folder / BASE} must say {{"base": "name of a model"}}')
    return base


def lay_over(parts: Parts, folder: Path) -> None:
    """Puts a folder's tensors, configs and recommended numbers over those of its base.

    Raises: UserError for a folder that changes nothing. Shapes are checked when networks are built.
    """
    changed = [name for name in NETWORKS if (folder / name / "config.json").is_file()]
    if not changed:
        raise UserError(f"{folder} has a {BASE}, but no {', no '.join(f'{n}/' for n in NETWORKS)}")
    parts.where = str(folder)
    for name in changed:
        own = NETWORKS[name][0](
            read_component(folder / name, None, parts.notices.append), str(folder / name)
        )
        parts.weights[name] = {**parts.weights.get(name, {}), **own}
        parts.configs[name] = read_json(folder / name / "config.json")
    if "image_encoder" in changed:
        _leave_out_texts(parts)
    parts.defaults = read_defaults(folder) or parts.defaults


def _leave_out_texts(parts: Parts) -> None:
    """A model that is told by pictures has no use for the text encoders of its base."""
    for name in [name for name in parts.configs if name.startswith("text_encoder")]:
        parts.weights.pop(name, None)
        parts.configs.pop(name)
    parts.tokenizers = []
