"""Update rules, one file each, and the names people know them by."""

from .ddim import DDIM
from .ddpm import DDPM
from .dpmpp import DPMpp2M
from .euler import Euler, EulerAncestral
from .fixed_point import FixedPoint
from .heun import Heun
from .lms import LMS
from .plms import PLMS
from .registry import SOLVERS, from_config, named
from .unipc import UniPC
