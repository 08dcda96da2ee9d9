"""Batches from files: shuffled anew every epoch, each file once, read ahead by grain's threads."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..notices import tell
from .data import WHOLE, Share

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
_NONE = "none of the pictures can be read"
_ENDLESS = 2**48  # length of the stream: more than any run reads


def files_of(folder: Path | None) -> list[Path]:
    """The pictures of a folder by name. Raises UserError if there is no folder, or none in it."""
    if folder is None or not Path(folder).is_dir():
        raise UserError(f"there is no folder {folder}; name one with pictures with --data")
    files = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in ENDINGS)
    if not files:
        raise UserError(f"{folder} holds no picture ({', '.join(ENDINGS)})")
    return files


class Folder:
    """Data for `fit` from files; the position in the stream is all that a checkpoint holds.

    Position i of the stream is file permutation_e[i mod n] of epoch e = i div n; the k-th batch is
    positions k batch .. (k + 1) batch - 1, so epochs follow each other without a gap. What stands
    in a batch depends on (files, seed, position) alone, not on the number of processes.

    Args:
      files: what is read, in an order that is the same in every process and every start.
      example: (file, rng) -> dict of arrays; rng belongs to the position.
      batch: examples of one step over all processes.
      share: from `sharding.share`.
      skip_broken: a file that cannot be read (UserError) is told once and replaced by the next in
        the order with "weight" 0, so that it does not count; otherwise it ends the run.
      pad: batches end with their epoch; the last one is filled up with examples of weight 0.
      threads: that read ahead.
    Raises: UserError for no files, or a batch that does not divide by the mesh.
    """

    def __init__(
        self,
        files: Sequence[Path],
        example: Callable[[Path, np.random.Generator], dict[str, Any]],
        *,
        batch: int,
        seed: int = 0,
        share: Share = WHOLE,
        skip_broken: bool = False,
        pad: bool = False,
        threads: int = 8,
    ):
        if not len(files):
            raise UserError("there is no file to train on")
        self._stream = _Stream(files, example, batch, seed, share.rows(batch), skip_broken, pad)
        self._threads = threads
        self.restore({"batch": 0})

    def next(self) -> dict[str, np.ndarray]:
        """This process's part of the next batch."""
        self._batch += 1
        return next(self._iterator)

    def state(self) -> dict:
        """Where the data stands, as JSON; the same for any number of processes."""
        return {"batch": self._batch}

    def restore(self, state: dict) -> None:
        """Go on from a `state()`."""
        import grain

        self._batch = state["batch"]
        ahead = max(self._threads, 2)
        reading = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=ahead)
        rows = grain.MapDataset.source(self._stream.after(self._batch)).to_iter_dataset(reading)
        self._iterator = iter(rows.batch(self._stream.rows))


def few_of(draw: Callable[[int], Any], order: Iterable[int], count: int) -> list[tuple[int, Any]]:
    """The first `count` (k, draw(k)) of an order that can be read, by turns where they are fewer.

    Raises: UserError if there is none.
    """
    found: list[tuple[int, Any]] = []
    for k in order:
        with contextlib.suppress(UserError):  # the run itself names it, or leaves it out
            found.append((k, draw(k)))
        if len(found) == count:
            break
    if not found:
        raise UserError(_NONE)
    again = itertools.cycle([k for k, _ in found])
    return found + [(k, draw(k)) for k in itertools.islice(again, count - len(found))]


class Together:
    """Several data side by side: a batch of this process is [of the first; of the second; ...]."""

    def __init__(self, *parts: Folder):
        self._parts = parts

    def next(self) -> dict[str, np.ndarray]:
        """This process's part of the next batch."""
        rows = [part.next() for part in self._parts]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def state(self) -> dict:
        """Where each of the data stands, as JSON."""
        return {"parts": [part.state() for part in self._parts]}

    def restore(self, state: dict) -> None:
        """Go on from a `state()`."""
        for part, own in zip(self._parts, state["parts"], strict=True):
            part.restore(own)


class _Stream:
    """Random access to the examples of this process, for grain."""

    def __init__(self, files, example, batch, seed, own, skip_broken, pad, start=0):
        self._about = (files, example, batch, seed, own, skip_broken, pad)
        self._files, self._example, self._seed = files, example, seed
        self._batch, self._own, self._start = batch, own, start
        self._skip, self._pad = skip_broken, pad
        self._told: set[Path] = set()
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, int))

    @property
    def rows(self) -> int:
        """Examples of this process in a batch."""
        return len(self._own)

    def after(self, batches: int) -> _Stream:
        """The same stream without its first batches."""
        return _Stream(*self._about, start=batches)

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, own: int) -> dict[str, Any]:
        step, row = divmod(own, len(self._own))
        position = (self._start + step) * self._batch + int(self._own[row])
        epoch, place = divmod(position, self._length())
        weight = float(place < len(self._files))
        found, good = self._readable(epoch, place % len(self._files), position)
        if self._skip or self._pad:
            weight *= good * found.get("weight", 1.0)
            found = {**found, "weight": np.float32(weight)}
        return found

    def _length(self) -> int:
        """Positions of an epoch."""
        n = len(self._files)
        return -(-n // self._batch) * self._batch if self._pad else n

    def _readable(self, epoch, place, position):
        """(example, 1), or the next example that can be read and 0."""
        order = self._permutation(epoch)
        for step in range(len(order)):
            path = self._files[order[(place + step) % len(order)]]
            try:
                found = self._example(path, np.random.default_rng((self._seed, position, 1)))
                return found, float(step == 0)
            except UserError as error:
                self._broken(path, error)
        raise UserError(_NONE)

    def _broken(self, path, error):
        if not self._skip:
            raise UserError(f"{error}; --set skip_broken=True leaves it out") from None
        if path not in self._told:
            self._told.add(path)
            tell(f"left out: {error}")

    def _permutation(self, epoch):
        known, order = self._order
        if known != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(len(self._files))
            self._order = (epoch, order)  # one assignment: threads share it
        return order
