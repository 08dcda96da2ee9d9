"""Stable Diffusion as one pytree: networks, tokenizers and schedule, and what methods ask of it."""

import functools
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from diffedit_jax.bundles import adapters
from diffedit_jax.core import Cond, Network, Schedule
from diffedit_jax.errors import UserError


class Coder(struct.PyTreeNode):
    """A network that is not the denoiser, with its parameters."""

    params: Any
    module: Any = struct.field(pytree_node=False)

    def __call__(self, *args, method: str | None = None):
        """One of the network's methods, as one compiled program per shape."""
        return _applied(self, args, method)


@functools.partial(jax.jit, static_argnames="method")
def _applied(coder: Coder, args: tuple, method: str | None):
    return coder.module.apply({"params": coder.params}, *args, method=method)


class StableDiffusion(struct.PyTreeNode):
    """A text-to-image latent model with everything that an edit needs.

    Pictures are [..., h, w, 3] in [-1, 1]; latents [..., h/f, w/f, c] are scaled, so that they
    have about unit variance. Works for Stable Diffusion 1, 2, XL, and for the networks with 8
    and 9 input channels made from them, Paint by Example's (an encoder of pictures in place of
    texts) among them.

    Attributes:
      denoiser: the UNet with its parameters; its `kind` is what it predicts.
      vae: encoder and decoder of pictures.
      texts: one text encoder, or SDXL's two; none where an example tells what to paint.
      tokenizers: as many tokenizers, on the host.
      schedule: the noise levels that the UNet was trained with.
      exemplar: Paint by Example's encoder of pictures; None for every other model.
      scaling_factor: latents are scaling_factor * the VAE's own.
      clip_sample: whether the checkpoint wants x0 clipped at each step.
      zero_null: SDXL's empty prompt is encoded as zeros.
      defaults: arguments of methods that the checkpoint itself suggests (its solver, and
        the steps and guidance of a defaults.json).
      notices: what was assumed while loading, one line each.

    Example:
      model = load("./stable-diffusion-v1-5")
      context = model.text(model.tokenize(["a cat"]))              # [1, 77, 768]

    Source: Rombach et al. 2022; diffusers' StableDiffusionPipeline.
    """

    denoiser: Network
    vae: Coder
    texts: tuple
    tokenizers: tuple = struct.field(pytree_node=False)
    schedule: Schedule = struct.field(pytree_node=False)
    exemplar: Coder | None = None
    scaling_factor: float = struct.field(pytree_node=False, default=0.18215)
    clip_sample: bool = struct.field(pytree_node=False, default=False)
    zero_null: bool = struct.field(pytree_node=False, default=False)
    solver: str | None = struct.field(pytree_node=False, default=None)
    defaults_json: str = struct.field(pytree_node=False, default="{}")
    configs_json: str = struct.field(pytree_node=False, default="{}")
    origin_json: str = struct.field(pytree_node=False, default="{}")
    notices: tuple = struct.field(pytree_node=False, default=())

    @property
    def in_channels(self) -> int:
        """Channels that the UNet takes: 4, 8 (InstructPix2Pix) or 9 (inpainting)."""
        return self.denoiser.module.in_channels

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.vae.module.latent_channels

    @property
    def factor(self) -> int:
        """Pixels per latent cell along one side."""
        return self.vae.module.factor

    @property
    def size(self) -> int:
        """Pixels along the side of the pictures that the model was trained on."""
        cells = self.denoiser.module.sample_size
        return (cells if isinstance(cells, int) else max(cells or (64,))) * self.factor

    @property
    def defaults(self) -> dict:
        """Arguments of methods that the checkpoint itself suggests."""
        solver = {} if self.solver is None else {"solver": self.solver}
        return solver | json.loads(self.defaults_json)

    @property
    def configs(self) -> dict:
        """Config of every component, in the words of diffusers."""
        return json.loads(self.configs_json)

    @property
    def origin(self) -> dict:
        """Where the model came from: source, digest of its content, options of loading."""
        return json.loads(self.origin_json)

    def with_lora(self, path, weight: float = 1.0):
        """A model with a LoRA merged in, see `adapters.with_lora`; this one stays as it is.

        model.with_lora("style.safetensors", 0.8)
        """
        return adapters.with_lora(self, path, weight)

    def with_embedding(self, path, token=None):
        """A model that knows a file's learned words, see `adapters.with_embedding`.

        model.with_embedding("learned_embeds.safetensors", "<toy>")
        """
        return adapters.with_embedding(self, path, token)

    def learned_style(self, path):
        """A style that was learned for this model, see `style.load_style`."""
        from diffedit_jax.bundles.style import load_style  # which knows this class

        return load_style(path, self)

    def styled(self, prompts: Sequence[str], words: Sequence[str], vectors: Any) -> Cond:
        """The condition of prompts with words[i] being the vector vectors[i], see `style.told`."""
        from diffedit_jax.bundles.style import told

        return told(self, prompts, words, vectors)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(h/f, w/f, c) of a picture of height x width pixels.

        Raises: UserError when a side is no multiple of the factor f.
        """
        for name, side in (("height", height), ("width", width)):
            if side < self.factor or side % self.factor:
                raise UserError(f"{name} must be a multiple of {self.factor}, not {side}")
        return height // self.factor, width // self.factor, self.latent_channels

    def tokenize(self, texts: Sequence[str], notices: list[str] | None = None):
        """Token ids int32 [n, 77] ([n, 2, 77] for SDXL), cut to the encoder's length.

        What is cut off is appended to `notices`, one line per text.
        Raises: UserError for text that is no text, and for words the text encoder lacks.
        """
        self._refuse_texts(texts)
        if notices is not None:
            notices.extend(self.text_notices(texts))
        ids = [tokenizer(texts) for tokenizer in self.tokenizers]
        return ids[0] if len(ids) == 1 else np.stack(ids, axis=1)

    def text_notices(self, texts: Sequence[str]) -> list[str]:
        """One line for each text that is too long, saying which words are not used."""
        self._refuse_texts(texts)
        return self.tokenizers[0].notices(texts) if texts else []

    def text(self, ids: Int[Array, "n *tokens"], *, skip: int = 0) -> Float[Array, "n tokens d"]:
        """What the UNet reads of a text: the encoder's last state, after its final norm.

        `skip` takes the state that many layers earlier ("clip skip"), after the same norm.
        For SDXL the two encoders' states before the last layer, side by side, without a norm.
        """
        return _encode_text(self, jnp.asarray(ids), skip)[0]

    def condition(
        self, prompts: Sequence[str], *, height: int | None = None, width: int | None = None
    ) -> Cond:
        """Encodes prompts; leaves begin with [n], one row per prompt.

        `height`, `width`: pixels of the picture to be made, which SDXL wants to know.
        """
        ids = self.tokenize(prompts)
        context, pooled = _encode_text(self, jnp.asarray(ids))
        if pooled is None:
            return Cond(text=context)
        sides = [height or self.size, width or self.size]
        times = jnp.tile(jnp.asarray([*sides, 0, 0, *sides], jnp.float32), (len(prompts), 1))
        kept = 1.0 - jnp.asarray([self.zero_null and not p for p in prompts], jnp.float32)
        context, pooled = context * kept[:, None, None], pooled * kept[:, None]
        return Cond(text=context, added={"text_embeds": pooled, "time_ids": times})

    def null(self, count: int = 1) -> Cond:
        """The condition of the empty prompt (or of no example), `count` rows."""
        if self.exemplar is not None:
            vector = self.exemplar.params["uncond_vector"]
            return Cond(text=jnp.tile(jnp.asarray(vector, jnp.float32), (count, 1, 1)))
        return self.condition([""] * count)

    def example(self, pixels: Float[Array, "n s s 3"]) -> Cond:
        """The condition of example pictures, prepared by `images.prepared_example`; [n, 1, d].

        Raises: UserError when the model is told by texts.
        """
        if self.exemplar is None:
            raise UserError("this model is told by texts; it has no encoder of example pictures")
        return Cond(text=self.exemplar(pixels))

    def _refuse_texts(self, texts: Sequence[str]) -> None:
        if texts and not self.tokenizers:
            raise UserError(
                "this model has no text encoder; an example picture tells it what to paint "
                "(method paint_by_example)"
            )

    def encode(
        self, image: Float[Array, "*n h w 3"], *, noise: Any = None, tiled: bool = False
    ) -> Float[Array, "*n y x c"]:
        """Scaled latents of pictures in [-1, 1]: s (mean + exp(logvar / 2) noise).

        Without `noise` ([..., h/f, w/f, c]) the mean itself. `tiled` bounds the memory of large
        pictures.
        """
        flat = image.reshape(-1, *image.shape[-3:])
        mean, logvar = self.vae(flat, method="tiled_encode" if tiled else "encode")
        latent = mean.reshape(*image.shape[:-3], *mean.shape[1:])
        if noise is not None:
            latent = latent + jnp.exp(0.5 * logvar).reshape(latent.shape) * noise
        return self.scaling_factor * latent

    def decode(
        self, latent: Float[Array, "*n y x c"], *, tiled: bool = False
    ) -> Float[Array, "*n h w 3"]:
        """Pictures, about [-1, 1] and not clipped, of scaled latents."""
        flat = latent.reshape(-1, *latent.shape[-3:]) / self.scaling_factor
        image = self.vae(flat, method="tiled_decode" if tiled else "decode")
        return image.reshape(*latent.shape[:-3], *image.shape[1:])


def _encode_text(model: StableDiffusion, ids, skip: int = 0) -> tuple[Any, Any]:
    """(context [n, tokens, d], pooled [n, p] or None)."""
    if len(model.texts) == 1:
        encoder = model.texts[0]
        last, more = encoder(ids)
        early = more["hidden_states"][-1 - skip]
        return (encoder(early, method="normalise") if skip else last), None
    said = [encoder(ids[:, i])[1] for i, encoder in enumerate(model.texts)]
    context = jnp.concatenate([more["hidden_states"][-2 - skip] for more in said], axis=-1)
    return context, said[-1]["projected"]
