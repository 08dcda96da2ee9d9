"""Where the time of a command went, and which compiled programs it used."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import jax

_COMPILING = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
_COUNTED = {
    "/jax/compilation_cache/cache_misses": "compiled",
    "/jax/compilation_cache/cache_hits": "cached",
}


class Timing:
    """Seconds by part of a command; listens to jax for what was compiled while it was open.

    Attributes:
      seconds: {"load": .., "run": .., "write": ..}, compiling taken out, and "compile" (tracing,
        lowering, and compiling or reading from the cache on disk).
      programs: {"compiled": anew, "cached": taken from the cache on disk}.
    """

    def __init__(self):
        self.seconds: dict[str, float] = {"compile": 0.0}
        self.programs = {"compiled": 0, "cached": 0}
        self._spans: list[tuple[float, float]] = []  # of compiling, apart from each other

    def __enter__(self) -> Timing:
        jax.monitoring.register_event_duration_secs_listener(self._lasted)
        jax.monitoring.register_event_listener(self._happened)
        return self

    def __exit__(self, *_) -> None:
        jax.monitoring.unregister_event_duration_listener(self._lasted)
        jax.monitoring.unregister_event_listener(self._happened)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time inside to `name`, without what was compiled meanwhile."""
        began, compiled = time.perf_counter(), self.seconds["compile"]
        try:
            yield
        finally:
            spent = time.perf_counter() - began - (self.seconds["compile"] - compiled)
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {spent:.1f}" for name, spent in self.seconds.items())
        return f"{sum(self.seconds.values()):.1f} s: {parts}"

    def _lasted(self, event: str, seconds: float, **_) -> None:
        """Counts a span once: what is traced inside something else was reported before it."""
        if event not in _COMPILING:
            return
        end = time.perf_counter()
        begin = end - seconds
        while self._spans and self._spans[-1][0] >= begin:
            inner = self._spans.pop()
            self.seconds["compile"] -= inner[1] - inner[0]
        self._spans.append((begin, end))
        self.seconds["compile"] += end - begin

    def _happened(self, event: str, **_) -> None:
        if event in _COUNTED:
            self.programs[_COUNTED[event]] += 1
