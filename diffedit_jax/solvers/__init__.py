"""Update rules, one file each."""

from .ddim import DDIM
