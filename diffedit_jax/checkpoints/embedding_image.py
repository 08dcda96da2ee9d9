"""Embeddings inside pictures: AUTOMATIC1111's text chunk, and its payload in the pixels' low bits.

Source: AUTOMATIC1111/stable-diffusion-webui, modules/textual_inversion/image_embedding.py
(embedding_from_b64, extract_image_data_embed) for the layout.
"""

import base64
import json
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from diffedit_jax.errors import UserError

CHUNK = "sd-ti-embedding"
JSON_LIMIT = 64 * 2**20  # 75 vectors of 1280 numbers, as text, are 2 MB
TENSOR = "TORCHTENSOR"


def read_embedding_image(path: Path) -> dict:
    """The dictionary that a picture carries, its tensors as arrays: what a .pt would hold.

    Raises: UserError when the picture carries none, or a damaged one.
    """
    from diffedit_jax.images.read import open_file

    with open_file(path, str(path)) as image:
        try:
            text = getattr(image, "text", {}).get(CHUNK)
            pixels = None if text else np.asarray(image.convert("RGB"), np.uint8)
            data = base64.b64decode(text) if pixels is None else _inflated(_payload(pixels))
            found = json.loads(data, object_hook=_tensor)
        except Exception:  # decoders of broken files raise whatever they stumble over
            raise UserError(f"{path} carries no embedding, or a damaged one") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} carries something that is no embedding")
    return found


def _tensor(value: dict):
    """JSON says a tensor as {"TORCHTENSOR": nested lists}."""
    return np.asarray(value[TENSOR], np.float32) if value.keys() == {TENSOR} else value


def _payload(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """The bytes hidden in the blocks left and right of the picture proper.

    Black columns part the blocks from the picture; the left one holds the low four bits of each
    byte, the right one the high four, both masked by a fixed sequence.
    """
    bright = pixels.any(axis=-1)
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    if not len(rows):
        raise ValueError("a black picture")
    low = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & 0x0F
    black = np.flatnonzero(~low.any(axis=(0, 2)))
    if len(black) < 2:
        raise ValueError("no black columns")
    left, right = low[:, : black[0]], low[:, black[-1] + 1 :]
    if left.shape != right.shape or not left.size:
        raise ValueError("blocks of different sizes")
    return ((_unmasked(right) << 4) | _unmasked(left)).tobytes()


def _unmasked(block: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """XOR with s_i % 255 & 15, where s_0 = 0 and s_i = (1664525 s + 1013904223) mod 2^32."""
    state, mask = 0, np.empty(block.size, np.uint8)
    for i in range(block.size):
        state = (1664525 * state + 1013904223) % 2**32
        mask[i] = (state % 255) & 0x0F
    return block ^ mask.reshape(block.shape)


def _inflated(data: bytes) -> bytes:
    """zlib, bounded; what follows the stream only fills up the block."""
    machine = zlib.decompressobj()
    found = machine.decompress(data, JSON_LIMIT)
    if not machine.eof:
        raise ValueError("a payload that is cut, or larger than 64 MB")
    return found
