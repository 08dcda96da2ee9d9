"""Pictures and masks as people have them: reading, fitting to a model, writing."""

from .example import prepared_example, read_example
from .frame import Frame, common_frames
from .mask import read_mask
from .read import FORMATS, MAX_PIXELS, Picture, read, read_all
from .write import check_writable, write
