"""The checkpoints of a run: asynchronous, whole or not there, and verified before they are used.

A step is written by orbax into `.saving-N`, gets its digests (digests.py) last of all, and takes
its name N by one rename. Whatever bears a number was therefore written whole; whatever does not is
what a lost process left behind, and is removed at the next start.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffedit_jax.errors import UserError
from diffedit_jax.notices import tell
from diffedit_jax.training import digests, disk
from diffedit_jax.training.agree import by_first, together
from diffedit_jax.training.digests import Damaged
from diffedit_jax.training.lock import Lock
from diffedit_jax.training.same import check_arrays, check_same
from diffedit_jax.training.tree import merged, named, places, shapes_of

__all__ = ["Checkpoints", "Damaged", "opened", "shapes_of"]

_EXTRA, _STATE = "extra.json", "state"
_SLACK = 1 << 20  # bytes of a checkpoint beside its arrays


class Checkpoints:
    """The checkpoints of one run in a folder of their own, which no other run may use meanwhile.

    Every process of a run makes one and calls the same methods in the same order; the folder is on
    a file system that all of them see.

    Args:
      keep_last: how many of the newest steps stay.
      keep_best: how many of the best stay beside them, by the `score` that `save` was given.
      mode: "min" or "max": which score is best.
      fallback: whether `restore` may go back to an older step when the newest is damaged.
      on_error: "stop", or "warn": a save that fails is told and the run goes on.
    Raises:
      UserError: another run holds the folder, or it cannot be written.

        with Checkpoints("runs/cat/checkpoints") as runs:
            found = runs.restore(shapes_of(state))
            runs.save(100, state, {"data": data.state()})
    """

    def __init__(
        self,
        folder: str | Path,
        keep_last: int = 2,
        keep_best: int = 0,
        mode: str = "min",
        fallback: bool = False,
        *,
        on_error: str = "stop",
    ):
        if keep_last < 1 or keep_best < 0 or mode not in ("min", "max"):
            raise UserError("keep_last is 1 or more, keep_best 0 or more, mode min or max")
        self.folder = _local(folder)
        self._keep = (keep_last, keep_best, 1 if mode == "min" else -1)
        if on_error not in ("stop", "warn"):
            raise UserError(f"on_error is stop or warn, not {on_error!r}")
        self._fallback, self._on_error = fallback, on_error
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._lock: Lock | None = None
        by_first(self._open)
        self._saver = _saver()

    def _open(self) -> None:
        disk.check_writable(self.folder)
        self._lock = Lock(self.folder)
        for rest in [*self.folder.glob(".saving-*"), *self.folder.glob(".removing-*")]:
            shutil.rmtree(rest, ignore_errors=True)

    def steps(self) -> list[int]:
        """The steps that are there, oldest first."""
        return sorted(int(p.name) for p in self.folder.iterdir() if re.fullmatch(r"\d+", p.name))

    def save(self, step: int, state: Any, extra: Mapping, *, score: float | None = None) -> None:
        """Saves the state under its step; returns once the arrays are copied, the disk follows.

        A step that is there already stays as it is. Waits for the save before, raises its error.

        Args:
          state: any tree of arrays, sharded in whatever way.
          extra: JSON that comes back with the state: data cursor, configuration, base model.
          score: for keep_best; lower is better, or higher with mode="max".
        Raises:
          DiskFull: there is no room, told before anything is written; older steps are untouched.
        """
        self.wait()
        try:
            if by_first(lambda: step in self.steps()):
                return
            arrays = named(state)
            place = self.folder / f".saving-{step}"
            by_first(lambda: self._begin(place, sum(x.nbytes for x in arrays.values())))
            with self._given_up(place):
                self._saver.save(place / _STATE, args=_args().StandardSave(arrays))
        except UserError as error:
            self._refused(error)
            return
        facts = {"step": step, "score": score, "arrays": places(arrays)}
        rest = (step, place, facts, dict(extra))
        self._thread = threading.Thread(target=self._finish, args=rest, name="checkpoint")
        self._thread.start()

    def check_room(self, state: Any, more: int = 0) -> None:
        """Raises DiskFull unless a checkpoint of this state, and `more` bytes, find room."""
        size = sum(x.nbytes for x in named(state).values())
        what = "a checkpoint and what is written at the end need" if more else "a checkpoint needs"
        try:
            by_first(lambda: disk.check_room(self.folder, _room(size) + more, what))
        except UserError as error:
            self._refused(error)

    def _begin(self, place: Path, size: int) -> None:
        disk.check_writable(self.folder)
        disk.check_room(self.folder, _room(size))
        with disk.told(place):
            place.mkdir()

    def _finish(self, step: int, place: Path, facts: dict, extra: dict) -> None:
        """In a thread of its own: what orbax has written becomes a checkpoint."""
        try:
            with self._given_up(place):
                self._saver.wait_until_finished()
                if self._lock:  # the first process
                    disk.write_synced(place / _EXTRA, json.dumps(extra))
                    digests.write_manifest(place, facts)
                    place.rename(self.folder / _name(step))
                    disk.sync(self.folder)
                    self._thin(step)
        except BaseException as error:
            self._error = error

    @contextlib.contextmanager
    def _given_up(self, place: Path) -> Iterator[None]:
        """What a failed save has written is removed: it would take the room of the next."""
        try:
            yield
        except BaseException as error:
            if self._lock:
                shutil.rmtree(place, ignore_errors=True)
            told = _as_told(error, self.folder)
            if told is error:
                raise
            raise told from error

    def _thin(self, newest: int) -> None:
        """Removes what neither keep_last nor keep_best wants; a half-removed step has no number."""
        last, best, sign = self._keep
        steps = self.steps()
        scores = {s: _score(self.folder / _name(s)) for s in steps} if best else {}
        scored = [s for s in steps if scores.get(s) is not None]
        ranked = sorted(scored, key=lambda s: (sign * scores[s], -s))
        keep = {newest, *steps[-last:], *ranked[:best]}
        for step in [s for s in steps if s not in keep]:
            gone = self.folder / f".removing-{step}"
            (self.folder / _name(step)).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def wait(self) -> None:
        """Waits until the last save is on disk. Raises: its error; DiskFull if it found no room."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread, error, self._error = None, self._error, None
        try:
            together(lambda: _raised(error))
        except UserError as told:
            self._saver = _saver()
            self._refused(told)

    def _refused(self, error: UserError) -> None:
        if self._on_error != "warn":
            raise error
        tell(f"not saved: {error}")

    def restore(self, shapes: Any, *, same: Mapping | None = None) -> tuple[Any, int, dict] | None:
        """The newest saved (state, step, extra), every file verified; None if nothing was saved.

        Args:
          shapes: tree of arrays or of ShapeDtypeStructs with shardings (`shapes_of`): where the
            state is put. The sharding may be another than the one it was saved from.
          same: what `extra` must hold unchanged (the configuration, the base model's digest); read
            before the arrays are.
        Raises:
          Damaged: a file is not what was written; with `fallback`, only if no older step is good.
          UserError: the checkpoint is of another configuration, or its arrays are others; all that
            differs is named.
        """
        self.wait()
        problem = None
        for step in reversed(by_first(self.steps)):
            try:
                together(lambda: self._verify(step))  # noqa: B023
            except UserError as error:
                problem = error
                if not self._fallback:
                    break
                by_first(lambda: self._set_aside(step))  # noqa: B023
                tell(f"{error}; going back to an older step")
                continue
            return self._read(step, shapes, same or {})
        if problem is not None:
            raise Damaged(f"{problem}{self._advice()}")
        return None

    def _advice(self) -> str:
        older = by_first(lambda: self.steps()[:-1])
        if self._fallback or not older:
            return "; no older step is good"
        return f"; with fallback=True the run goes back to step {older[-1]}"

    def _verify(self, step: int) -> None:
        """This process reads its share of a step's files: the reading is spread over all."""
        import jax

        folder = self.folder / _name(step)
        files = digests.read_manifest(folder)["files"]
        mine = sorted(files)[jax.process_index() :: jax.process_count()]
        digests.check_files(folder, files, mine)

    def _set_aside(self, step: int) -> None:
        aside = self.folder / f"damaged-{step}"
        shutil.rmtree(aside, ignore_errors=True)
        with disk.told(aside):
            (self.folder / _name(step)).rename(aside)

    def _read(self, step: int, shapes: Any, same: Mapping) -> tuple[Any, int, dict]:
        folder = self.folder / _name(step)
        extra = json.loads((folder / _EXTRA).read_text(encoding="utf-8"))
        check_same(folder, extra, same)
        wanted = named(shapes, abstract=True)
        check_arrays(folder, digests.read_manifest(folder)["arrays"], places(wanted))
        found = self._saver.restore(folder / _STATE, args=_args().StandardRestore(wanted))
        return merged(shapes, found), step, extra

    def close(self) -> None:
        """Waits for the last save and gives the folder back."""
        try:
            self.wait()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._saver.close()
        if self._lock:
            self._lock.release()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
            return
        if self._thread:  # what was begun is finished, but nothing more is asked of other processes
            self._thread.join()
        with contextlib.suppress(Exception):
            self._leave()


def opened(folder: Path, config: Any) -> Checkpoints:
    """The checkpoints of a run as its settings keep them."""
    names = ("keep_last", "keep_best", "fallback", "on_error")
    return Checkpoints(folder, **{name: config[name] for name in names})


def _room(size: int) -> int:
    """Bytes on the disk of a checkpoint whose arrays have `size`."""
    return size + size // 50 + _SLACK


def _local(folder: str | Path) -> Path:
    if "://" in str(folder):
        raise UserError(
            f"{folder} is no folder of this machine; mount the bucket and name its path"
        )
    return Path(folder).absolute()


def _name(step: int) -> str:
    return f"{step:08d}"


def _saver():
    import orbax.checkpoint as ocp

    return ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())


def _args():
    import orbax.checkpoint as ocp

    return ocp.args


def _score(folder: Path) -> float | None:
    try:
        return digests.read_manifest(folder)["score"]
    except Damaged:
        return None


def _raised(error: BaseException | None) -> None:
    if error is not None:
        raise error


def _as_told(error: BaseException, folder: Path) -> BaseException:
    """A failed write as one line; what is no such failure as it is."""
    if isinstance(error, UserError) or not isinstance(error, Exception):
        return error
    if disk.is_full(error):
        return disk.DiskFull(
            f"{folder}: no space left on the device while a checkpoint was written;"
            " the checkpoints that are there are untouched"
        )
    text = " ".join(str(error).split())[:200]
    return UserError(f"{folder}: a checkpoint was not written: {text}")
