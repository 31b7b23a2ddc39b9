"""Views against SciPy's interpolation and NumPy's colours; the contrastive loss at its edges."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from fishnet.errors import UsageError
from fishnet.pretraining.contrastive import finds_partner, nt_xent
from fishnet.pretraining.views import AREA, crop, luminance, random_view, recolor

IMAGE = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
VIEW = quick(random_view)
CROP = quick(crop)


def test_crop():
    for sides, place, mirror in (
        ((1.0, 1.0), (0.3, 0.9), False),
        ((1.0, 1.0), (0.5, 0.5), True),
        ((0.5, 0.75), (0.0, 1.0), False),
        ((0.3, 0.6), (1.0, 0.2), True),
    ):
        found = CROP(IMAGE, np.float32(sides), np.float32(place), np.array(mirror))
        # The centre of pixel i of n lies at (i + 1/2) / n of the rectangle's side.
        rows, columns = (
            (n * ((1 - side) * at + side * (np.arange(n) + 0.5) / n) - 0.5)
            for n, side, at in zip(IMAGE.shape, sides, place, strict=False)
        )
        grid = np.meshgrid(rows, columns[::-1] if mirror else columns, indexing="ij")
        exact = [map_coordinates(IMAGE[..., c].astype(float), grid, order=1, mode="nearest") for c in range(3)]
        # Places count to 1/256 of a pixel, of which neighbours may differ by 255 levels.
        np.testing.assert_allclose(found, np.stack(exact, -1), atol=2.5)
    np.testing.assert_array_equal(CROP(IMAGE, np.ones(2, np.float32), np.zeros(2, np.float32), np.array(False)), IMAGE)
    np.testing.assert_array_equal(
        CROP(IMAGE, np.ones(2, np.float32), np.zeros(2, np.float32), np.array(True)), IMAGE[:, ::-1]
    )


def test_recolour():
    def grey(x):
        return (x @ [0.299, 0.587, 0.114])[..., None]

    x, factors = IMAGE.astype(np.float64), np.array([1.3, 0.7, 1.4])
    expected = np.clip(factors[0] * x, 0, 255)
    expected = np.clip(grey(expected).mean() + factors[1] * (expected - grey(expected).mean()), 0, 255)
    expected = np.clip(grey(expected) + factors[2] * (expected - grey(expected)), 0, 255)
    image, run = IMAGE.astype(np.float32), quick(recolor)
    np.testing.assert_allclose(run(image, factors.astype(np.float32)), expected, atol=1e-3)
    np.testing.assert_allclose(run(image, np.ones(3, np.float32)), IMAGE, atol=1e-4)
    np.testing.assert_allclose(
        luminance(jnp.asarray(image[..., :2])), IMAGE[..., :2].mean(-1, keepdims=True), atol=1e-4
    )


def test_views_are_distributed_as_said():
    """Of images whose channels are row, column and a constant, a view tells the crop and the colours."""
    b, n = 512, 16
    rows, columns = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    image = np.stack([8 * rows, 8 * columns, np.full((n, n), 64)], -1).astype(np.uint8)
    views = np.asarray(VIEW(jax.random.key(0), np.broadcast_to(image, (b, n, n, 3))))
    assert views.min() >= 0 and views.max() <= 255
    spread = np.ptp(views, axis=-1).max((1, 2))
    assert abs((spread < 1e-3).mean() - 0.2) < 0.05  # grey
    views = views[spread >= 1e-3]
    plain = views[np.abs(views[..., 2] - 64).max((1, 2)) < 1e-3]  # colours unchanged
    assert abs(len(plain) / len(views) - 0.2) < 0.05
    across = views[:, n // 2, -1, 1] - views[:, n // 2, 0, 1]
    assert abs((across < 0).mean() - 0.5) < 0.08  # mirrored
    # Differences of the middle pixels: the edge is repeated where the crop reaches it.
    tall, wide = (
        np.abs(plain[:, 10, 8, 0] - plain[:, 5, 8, 0]) / 40,
        np.abs(plain[:, 8, 10, 1] - plain[:, 8, 5, 1]) / 40,
    )
    area = tall * wide
    assert AREA - 0.05 < area.min() < 0.35 and area.max() > 0.8 and abs(area.mean() - 0.6) < 0.1
    assert 0.7 < (tall / wide).min() < 0.85 and 1.2 < (tall / wide).max() < 1.4


def test_one_channel():
    """Neither mirrored nor changed in saturation; still cropped and relit."""
    image = np.broadcast_to(np.arange(0, 128, 8, np.uint8)[:, None], (32, 16, 16, 1)).transpose(0, 2, 1, 3)
    views = np.asarray(VIEW(jax.random.key(0), image))
    assert views.shape == image.shape and (views[:, 0, -1] >= views[:, 0, 0]).all()
    assert len(np.unique(views[:, 0, 0])) > 8


def test_nt_xent():
    """Closed forms: identical views, orthogonal pairs; finite at the limits; lengths mean nothing."""
    b, t = 4, 0.25
    grads = jax.value_and_grad(lambda z, t: (nt_xent(z, t).mean(), nt_xent(z, t)), (0, 1), has_aux=True)
    run = quick(lambda z, t: (*grads(z, t), finds_partner(z)))
    pairs = np.tile(np.eye(b, dtype=np.float32), (2, 1)) * np.arange(1.0, 2 * b + 1, dtype=np.float32)[:, None]
    (_, losses), _, right = run(pairs, t)
    np.testing.assert_allclose(losses, np.log(1 + (2 * b - 2) * np.exp(-1 / t)), rtol=1e-5)
    assert right.all()
    (_, losses), _, _ = run(np.ones_like(pairs), t)
    np.testing.assert_allclose(losses, np.log(2 * b - 1), rtol=1e-6)
    _, _, right = run(np.concatenate([pairs[:b], np.roll(pairs[:b], 1, 0)]), t)
    assert not right.any()
    pairs[0] = 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run(pairs, 0.01)))


def test_nt_xent_refuses():
    with pytest.raises(UsageError, match="above 0, got -1"):
        nt_xent(jnp.ones((4, 2)), -1)
    with pytest.raises(UsageError, match="got 3 views"):
        nt_xent(jnp.ones((3, 2)), 0.5)
