"""The kernels' library, built once for all sessions and registered with JAX."""

import pytest

from fishnet.nn.cpu.library import missing_kernels
from tests.conftest import KEPT


@pytest.fixture(scope="session")
def kernels() -> None:
    """Loads the kernels, from a cache that sessions share; skips where they cannot be had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(KEPT.parent / "kernels"))
        if reason := missing_kernels():
            pytest.skip(reason)
