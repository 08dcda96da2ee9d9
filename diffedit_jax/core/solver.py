"""A solver walks the table: it is given the edited denoiser and asks as often as it likes."""

from __future__ import annotations

from typing import Any

from flax import struct

from .prediction import Prediction
from .time import Schedule, Step


class Solver(struct.PyTreeNode):
    """One update rule. Numbers such as eta are leaves; what changes the program is static.

    A subclass says in its docstring what a prediction's `pull` means to it.
    """

    draws = False  # whether a step draws noise, so that its row needs a key
    float64 = False  # whether the latent must be kept in float64, whatever the network computes in

    def evaluations(self, count: int) -> int:
        """How often the network is asked while `count` rows are walked."""
        return count

    def steps(self, schedule: Schedule, count: int, *, spacing: str | None = None,
              start: int = 0) -> Step:  # fmt: skip
        """The table of `count` steps, host arrays; rows before grid position `start` are idle.

        Args:
          schedule: noise levels of the training.
          count: number of steps, 1 <= count <= schedule.train_steps.
          spacing: "leading", "linspace" or "trailing"; None takes the schedule's own.
          start: first grid position that is walked (SDEdit skips the noisiest ones).
        """
        raise NotImplementedError

    def begin(self, steps: Step, noise):
        """Where a run from pure noise starts, given standard normal noise; most start at it."""
        return noise

    def init(self, x) -> Any:
        """The solver's memory before the first step."""
        return ()

    def step(self, denoise, x, memory, step: Step) -> tuple[Any, Any, Prediction]:
        """One row of the table: returns (latent after, memory, the prediction that was used).

        Args:
          denoise: (x, step) -> Prediction, the edited denoiser with its condition bound.
          x: latent at the row's level.
          memory: what `init` or the step before returned.
          step: the row.
        """
        raise NotImplementedError
