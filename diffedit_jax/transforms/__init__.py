"""Edits that more than one method uses."""

from .attention import AttentionEdit, ReadWords, WordReader, joined, word_maps
from .attention_blend import KeepOutside, LocalBlend
from .blend import Blend
from .combine import Combine, guidance_weights
from .follow import Follow
from .inject import Inject
from .null_texts import NullTexts
from .proximal import Proximal
