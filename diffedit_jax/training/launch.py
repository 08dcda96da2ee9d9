"""What every training script shares: its arguments, its configuration, the compiler's flags."""

import argparse
import importlib.util
import os
from pathlib import Path


def fast_cpu_flags() -> None:
    """Let XLA hand matrix products to its packed CPU kernels: the UNet trains 1.6 times faster.

    Must run before jax makes its first array; does nothing if XLA_FLAGS already names the option.
    """
    flag = "--xla_cpu_experimental_ynn_fusion_type"
    flags = os.environ.get("XLA_FLAGS", "")
    if flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}=LIBRARY_FUSION_TYPE_DOT".strip()


def keep_compiled(folder: Path) -> None:
    """Keep compiled programs in `folder`, so that a resumed run starts at once."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 2.0)


def load_config(path: str | Path, changes: list[str] = ()):
    """The ConfigDict of a configuration file, with `name=value` changes applied."""
    specification = importlib.util.spec_from_file_location("configuration", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    config = module.get_config()
    for change in changes:
        name, value = change.split("=", 1)
        config[name] = type(config[name])(value)
    return config


def arguments(description: str):
    """Read --config, --out and --set from the command line: (config, out folder)."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="a file of configs/")
    parser.add_argument(
        "--out", required=True, type=Path, help="folder of the run; resumed if there"
    )
    parser.add_argument("--set", action="append", default=[], metavar="name=value")
    found = parser.parse_args()
    fast_cpu_flags()
    found.out.mkdir(parents=True, exist_ok=True)
    keep_compiled(found.out / "compiled")
    return load_config(found.config, found.set), found.out
