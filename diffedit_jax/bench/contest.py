"""Several programs that do the same thing, timed in turns: A B C, A B C, ...

Each lives in a process of its own, so that thread pools and compiler flags cannot meet; it gets
ready, then waits for a line on its standard input and answers each with one line of JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import UserError

_LONG = 5  # seconds


@dataclasses.dataclass(frozen=True)
class Entry:
    """Who takes part: a title, how to start it (`python -m module words`), what to ask it for.

    Entries that start alike share a process and differ in `request`.
    """

    title: str
    module: str
    words: tuple[str, ...]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    request: str = "run"

    @property
    def process(self) -> tuple:
        """What tells one process from another."""
        return self.module, self.words, tuple(sorted(self.environment.items()))


@dataclasses.dataclass(frozen=True)
class Times:
    """What one entry took, in seconds, one number per turn."""

    title: str
    wall: tuple[float, ...]
    cpu: tuple[float, ...]  # summed over threads
    facts: dict  # what it said of itself when it was ready

    @property
    def median(self) -> float:
        """Median wall time."""
        return statistics.median(self.wall)


class Contestant:
    """The parent's end of a process."""

    def __init__(self, entry: Entry):
        self.entry = entry
        self._process = subprocess.Popen(
            [sys.executable, "-m", entry.module, *entry.words],
            env={**os.environ, **entry.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = self._answer()

    def turn(self, request: str) -> dict:
        """One run of what is asked for; {"wall": seconds, "cpu": seconds}."""
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        return self._answer()

    def told_turn(self, entry: Entry) -> dict:
        """A turn of an entry of this process; one that took long is told at once."""
        found = self.turn(entry.request)
        if found["wall"] > _LONG:
            print(f"{entry.title}: {found['wall']:.1f} s", file=sys.stderr, flush=True)
        return found

    def close(self) -> None:
        """Ends the process by closing its input."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> dict:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        code = self._process.wait()
        raise UserError(f"bench: {self.entry.title} ended with code {code}; its message is above")


def contest(entries: Sequence[Entry], turns: int, *, apart: bool = False) -> list[Times]:
    """Starts all entries, then lets each run once per turn, in order.

    Args:
      apart: each entry is there alone, for all its turns: for programs whose memory does not fit
        beside that of another.
    Errors: UserError when an entry cannot start or breaks off.
    """
    if apart:
        return [times for entry in entries for times in contest([entry], turns)]
    there: dict[tuple, Contestant] = {}
    try:
        for entry in entries:
            if entry.process not in there:
                print(f"getting ready: {entry.title}", file=sys.stderr, flush=True)
                there[entry.process] = Contestant(entry)
        rounds = [[there[e.process].told_turn(e) for e in entries] for _ in range(turns)]
    finally:
        for contestant in there.values():
            contestant.close()
    return [
        Times(
            entry.title,
            tuple(turn[k]["wall"] for turn in rounds),
            tuple(turn[k]["cpu"] for turn in rounds),
            there[entry.process].facts,
        )
        for k, entry in enumerate(entries)
    ]


def serve(runs: Mapping[str, Callable[[], Any]], **facts: Any) -> None:
    """The child's end: says it is ready, then runs what every line it reads asks for."""
    print(json.dumps({"ready": True, **facts}), flush=True)
    for line in sys.stdin:
        print(json.dumps(timed(runs[line.strip()])), flush=True)


def timed(run: Callable[[], Any]) -> dict[str, float]:
    """{"wall", "cpu"}: seconds of one call, the second summed over threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def hold_to_cores(count: int) -> None:
    """Gives this process `count` cores, whatever thread pools it will start (Linux)."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:count])
    os.environ["OMP_NUM_THREADS"] = str(count)
