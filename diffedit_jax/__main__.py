"""`python -m diffedit_jax` is `diffedit`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
