"""Edits that more than one method uses."""

from .blend import Blend
from .combine import Combine, guidance_weights
from .follow import Follow
from .inject import Inject
