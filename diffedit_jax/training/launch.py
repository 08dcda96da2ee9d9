"""What every training script shares: its arguments, its configuration, the compiler's flags."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..cli.guard import guarded
from ..errors import UserError
from . import ranks
from .agree import by_first, is_first
from .checks import check
from .digests import of_folder
from .lock import Lock
from .settings import complete

_locks: list[Lock] = []  # of the runs of this process


@dataclasses.dataclass(frozen=True)
class Launch:
    """What a training script was asked for."""

    config: Any  # ml_collections.ConfigDict with every setting of the trainer
    out: Path  # folder of the run; resumed if there
    data: Path | None  # folder of pictures, where a task wants one
    quiet: bool

    @functools.cached_property
    def mesh(self) -> Any:
        """The mesh that the config names, over the devices of all processes."""
        from .sharding import make_mesh

        return make_mesh(self.config.mesh)

    @functools.cached_property
    def model(self) -> Any:
        """The base model that the config names; its networks compute in config.compute."""
        from ..bundles import load

        return load(self.config.model, dtype=self.config.compute)

    @functools.cached_property
    def share(self) -> Any:
        """The part of every batch that this process loads, a data.Share."""
        from .sharding import share

        return share(self.mesh)

    @functools.cached_property
    def about(self) -> dict[str, str]:
        """What of the data stays the same when the run goes on."""
        return {"folder": by_first(lambda: of_folder(self.data))} if self.data else {}

    def fit(self, task: Any, data: Any, **more: Any) -> Any:
        """`loop.fit` of this run on data of this process's `share`; `more` goes there too."""
        from .loop import fit

        run = dict(mesh=self.mesh, about=self.about, quiet=self.quiet)
        return fit(task, data, self.config, self.out, **run, **more)

    def say(self, text: str) -> None:
        """Prints a line, once for all processes, unless --quiet."""
        if not self.quiet and is_first():
            print(text)


def start(main: Callable[[], None]) -> None:
    """Runs a script's main: a user's mistake, or NaN, is one line on stderr and exit code 2.

    Other errors keep their traceback, and the exit code 1 with which a supervisor starts again.
    """
    try:
        if code := guarded(main):
            raise SystemExit(code)
    finally:
        while _locks:
            _locks.pop().release()


def arguments(description: str) -> Launch:
    """Read the command line of a training script and make the machine ready for it.

    The out folder belongs to this run until `start` returns, or the process ends.

    Raises: UserError for a config that does not exist, a setting that does not exist or has the
    wrong type, or an out folder that cannot be made or that another run is using.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="a file of configs/")
    parser.add_argument("--out", required=True, type=Path, help="folder of the run, which goes on")
    parser.add_argument("--data", type=Path, help="folder of pictures")
    parser.add_argument("--set", action="append", default=[], metavar="name=value")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    found = parser.parse_args()
    config = check(complete(load_config(found.config, found.set)), sys.argv[0])
    _prepare(found.out)
    return Launch(config, found.out, found.data, found.quiet)


def _prepare(out: Path) -> None:
    """The compiler's flags, the other processes, and a place for compiled programs."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; give another --out") from None
    fast_cpu_flags()
    ranks.join()
    by_first(lambda: _locks.append(Lock(out)))
    keep_compiled(out / "compiled")


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


def load_config(path: str | Path, changes: list[str] = ()) -> Any:
    """The ConfigDict of a configuration file, with `name=value` changes applied.

    A value is read as the type of what it replaces; `a.b=value` reaches into a nested dict.
    """
    if not Path(path).is_file():
        raise UserError(f"config {path} does not exist")
    specification = importlib.util.spec_from_file_location("configuration", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"config {path} has no get_config()")
    config = module.get_config()
    for change in changes:
        _change(config, change)
    return config


def _change(config: Any, change: str) -> None:
    name, equals, text = change.partition("=")
    if not equals:
        raise UserError(f"--set {change} needs the form name=value")
    *outer, last = name.split(".")
    known = complete(config)
    for part in outer:
        known, config = (_inside(place, part, name) for place in (known, config))
    if last not in known:
        near = ", ".join(sorted(known))
        raise UserError(f"--set {name}: there is no such setting; there are: {near}")
    with config.unlocked():
        config[last] = _read(name, text, known[last])


def _inside(place, part, name):
    if part not in place or not hasattr(place[part], "keys"):
        raise UserError(f"--set {name}: there is no {part} to reach into")
    return place[part]


def _read(name: str, text: str, before: Any) -> Any:
    """The text as a value of the type of `before`."""
    if isinstance(before, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(before, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(before, tuple) and isinstance(value, list):
        value = tuple(value)
    if before is not None and type(value) is not type(before):
        raise UserError(f"--set {name}={text}: it wants a value like {before!r}")
    return value
