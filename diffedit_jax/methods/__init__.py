"""Editing methods, one file per paper; importing the package registers them all."""

from .generate import generate
from .inpaint import inpaint
from .registry import Method, Parameter, find, methods
from .sdedit import sdedit
