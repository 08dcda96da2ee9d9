# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Edit a picture with diffedit_jax
#
# The small model that comes with the package runs anywhere, without a download. The last section
# shows the same calls with a Stable Diffusion checkpoint of your own.

# %%
# In Colab, first clone the repository, then: %pip install ./diffedit_jax
import diffedit_jax as de

model = de.load("emoji")

# %% [markdown]
# ## Draw a picture

# %%
cat = de.generate(model, "a cat on a blue background", seed=1)
cat.image.shape

# %% [markdown]
# ## Edit it
#
# `sdedit` noises the picture up to `strength` and denoises it with another prompt: little strength
# keeps the picture, much strength follows the prompt.

# %%
dog = de.edit(model, cat.image, "sdedit", prompt="a dog on a blue background", strength=0.7, seed=0)

# %%
from PIL import Image


def row(pictures, scale=3):
    """Pictures side by side, enlarged."""
    import numpy as np

    sheet = Image.fromarray(np.concatenate(list(pictures), axis=1))
    return sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST)


row([cat.image, dog.image])

# %% [markdown]
# ## Several strengths in one compiled program

# %%
strengths = [0.3, 0.5, 0.7, 0.9]
many = de.edit(model, cat.image, "sdedit", prompt="a panda on a blue background",
               strength=strengths, seed=[0] * len(strengths))  # fmt: skip
row(many.images)

# %% [markdown]
# ## Repaint one part and keep the rest to the bit

# %%
import numpy as np

mask = np.zeros(cat.image.shape[:2], np.float32)
mask[10:54, 10:54] = 1
painted = de.edit(model, cat.image, "inpaint", mask=mask, prompt="a heart on a blue background")
assert (painted.image[mask == 0] == cat.image[mask == 0]).all()
row([cat.image, painted.image])

# %% [markdown]
# ## Keep it
#
# The recipe travels inside the picture: `diffedit replay heart.png --out again.png` runs it again.

# %%
painted.recipe["parameters"]

# %% [markdown]
# ## Your own checkpoint
#
# A diffusers folder, a `.safetensors` or `.ckpt` file, or a hub id:
#
# ```python
# model = de.load("path/to/stable-diffusion-v1-5", dtype="bfloat16")
# de.edit(model, "photo.jpg", "sdedit", prompt="a watercolour of a harbour", strength=0.6)
# ```
#
# `de.methods()` lists every method; `de.methods()["sdedit"].parameters` every knob.
