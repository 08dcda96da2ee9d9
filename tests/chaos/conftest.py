"""Chaos tests share one cache of compiled programs, and are marked."""

import pytest

from .harness import running


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/chaos" in item.nodeid.replace("\\", "/"):
            item.add_marker(pytest.mark.chaos)


@pytest.fixture(scope="session")
def cache(request, tmp_path_factory):
    if hasattr(request.config, "cache"):
        return request.config.cache.mkdir("jax_chaos")
    return tmp_path_factory.mktemp("jax")


@pytest.fixture
def launch(tmp_path, cache):
    """Makes runs that are ended, whatever happens."""
    import contextlib

    with contextlib.ExitStack() as stack:
        yield lambda name="run", **options: stack.enter_context(
            running(tmp_path, name, cache=cache, **options)
        )
