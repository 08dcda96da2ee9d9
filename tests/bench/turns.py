"""A child for the tests of contests: counts how often it was asked."""

import time

from diffedit_jax.bench.contest import serve

serve({"quick": lambda: None, "slow": lambda: time.sleep(0.05)}, name="turns")
