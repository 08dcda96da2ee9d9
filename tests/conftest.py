"""What every test needs: the CPU, checked shapes, and programs that are compiled once."""

import os
from collections import Counter

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile many small programs and run each a few times: a third of the compiler's time is
# spent on optimising what hardly runs. Numbers stay within every tolerance either way.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest
from jaxtyping import install_import_hook

with install_import_hook("diffedit_jax", "beartype.beartype"):
    import diffedit_jax  # noqa: F401


def pytest_configure(config):
    if hasattr(config, "cache"):  # not under -p no:cacheprovider
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file stays with one worker, which compiles and loads what its tests share once."""
    if config.option.dist != "load":  # somebody asked for another way
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Files with many slow tests come first, so that none is left for one worker at the end."""
    slow = Counter(
        item.path for item in items if any(map(item.get_closest_marker, ("slow", "chaos")))
    )
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture
def highest():
    """Matrix products in full float32, for comparison with torch."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Forgets compiled programs between files once a worker has grown past 4 GB."""
    yield
    try:
        pages = int(open("/proc/self/statm").read().split()[1])  # noqa: SIM115
    except OSError:  # not Linux
        return
    if pages * os.sysconf("SC_PAGE_SIZE") > 4 << 30:
        jax.clear_caches()
