"""Settings of the whole suite: two CPU devices, shapes in signatures checked, no network, no user cache."""

import os

import jax
import pytest
from jaxtyping import install_import_hook

# Before JAX makes its devices: many tests spread lanes over two.
jax.config.update("jax_num_cpu_devices", 2)

# Signatures of what is small and called often are checked against their jaxtyping annotations.
install_import_hook(["fishnet.nn", "fishnet.models", "fishnet.losses", "fishnet.augment"], "beartype.beartype")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keeps the user's cache and data folder out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("FISHNET_DATA", raising=False)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
