"""A whole model on its way between files and networks."""

from dataclasses import dataclass, field
from pathlib import Path

from diffedit_jax.checkpoints.read import Weights


@dataclass
class Parts:
    """Per component: canonical weights and a config in the words of diffusers.

    Attributes:
      where: the file or folder it came from, for messages.
      weights: {"unet" | "vae" | "text_encoder(_2)" | "image_encoder": {torch key: array}}.
      configs: the same keys, and "scheduler".
      tokenizers: folders of the tokenizers, in the order of the text encoders.
      notices: what was assumed, in plain words, for the user to see.
      extras: scalars of model_index.json that change what a pipeline does.
      defaults: numbers that the model's makers recommend, from defaults.json.
    """

    where: str
    weights: dict[str, Weights] = field(default_factory=dict)
    configs: dict[str, dict] = field(default_factory=dict)
    tokenizers: list[Path] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    extras: dict = field(default_factory=dict)
    defaults: dict = field(default_factory=dict)
