"""The idea of the library: time as a table, one prediction, edits over a solver, one loop."""

from .control import Control, Controls, Site
from .denoiser import Cond, Denoise, Edited, Mixture, Network, prepared
from .prediction import KINDS, Move, Prediction
from .sample import Result, image_axes, sample, sample_batch, stream
from .solver import Solver
from .time import (
    SPACINGS,
    Schedule,
    Step,
    counted,
    first,
    grid,
    image_keys,
    levels,
    noised,
    reverse,
    row,
    skipped,
    table,
    window,
    with_key,
)
from .transform import Chain, Transform, chain
