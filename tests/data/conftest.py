"""Fixtures of the data tests: a cache of their own, photographs to order, and the shared source folders."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache, or finds data through the user's environment."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("FISHNET_DATA", raising=False)
    return cache / "fishnet"


@pytest.fixture(scope="session")
def reef_source():
    return _shared("reef", "index.csv")


@pytest.fixture(scope="session")
def mnist_source():
    return _shared("mnist", "train-images-idx3-ubyte.gz")


@pytest.fixture
def noise():
    """noise(rng, size) is a random image of large patches, so that its difference hash is its own."""

    def make(rng, size=(24, 20)):
        small = Image.fromarray(rng.randint(0, 256, (8, 9, 3), dtype=np.uint8))
        return small.resize(size, Image.Resampling.BICUBIC)

    return make


@pytest.fixture
def photos(tmp_path, noise):
    """photos({"cat": 5, "dog": 7}) makes a folder of random PNG photographs and returns its path."""

    def make(counts, size=(24, 20), root=tmp_path / "photos"):
        rng = np.random.RandomState(len(counts))
        for name, count in counts.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                noise(rng, size).save(root / name / f"{name}_{i:03d}.png")
        return root

    return make


def _shared(name, file):
    folder = SHARED / name
    if not (folder / file).is_file():
        pytest.skip(f"the source data are not beside this clone: {folder}")
    return folder
