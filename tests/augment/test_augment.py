"""Augmentations against a loop over images in NumPy, and their distributions."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fishnet.augment.images import AUGMENTATIONS, affine, flip, flip_shift, none, relight, shift, strong
from fishnet.errors import UsageError

KEY = jax.random.key(0)


def images(b: int = 12, h: int = 16, w: int = 12, c: int = 3) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (b, h, w, c)), jnp.uint8)


def crops(image: np.ndarray, pixels: int) -> dict[bytes, tuple[int, int]]:
    """Every crop of the edge-padded image, by its content."""
    h, w, _ = image.shape
    padded = np.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
    places = [(i, j) for i in range(2 * pixels + 1) for j in range(2 * pixels + 1)]
    return {padded[i : i + h, j : j + w].tobytes(): (i - pixels, j - pixels) for i, j in places}


def test_the_table_is_complete() -> None:
    assert list(AUGMENTATIONS) == ["none", "flip", "shift", "flip_shift", "strong"]


# The strong one is a large program.
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name == "strong" else name for name in AUGMENTATIONS]


@pytest.mark.parametrize("name", NAMES)
def test_shape_type_and_repeatability(name: str) -> None:
    x = images()
    y = AUGMENTATIONS[name](KEY, x)
    assert (y.shape, y.dtype) == (x.shape, jnp.uint8)
    np.testing.assert_array_equal(y, AUGMENTATIONS[name](KEY, x))
    if name != "none":
        assert (y != AUGMENTATIONS[name](jax.random.key(1), x)).any()


def test_none_changes_nothing() -> None:
    np.testing.assert_array_equal(none(KEY, images()), images())


def test_flip_mirrors_whole_images_half_of_the_time() -> None:
    x = np.asarray(images(400, 8, 6))
    y = np.asarray(flip(KEY, x := jnp.asarray(x)))
    flipped = (y == np.asarray(x)[:, :, ::-1]).all((1, 2, 3))
    kept = (y == np.asarray(x)).all((1, 2, 3))
    assert (flipped ^ kept).all()
    assert 160 < flipped.sum() < 240  # four standard deviations


@pytest.mark.parametrize("pixels", [0, 1, 3])
def test_shift_gives_each_image_one_of_its_crops(pixels: int) -> None:
    x = images()
    for before, after in zip(np.asarray(x), np.asarray(shift(KEY, x, pixels)), strict=True):
        assert after.tobytes() in crops(before, pixels)


def test_shift_by_nothing_is_the_identity() -> None:
    np.testing.assert_array_equal(shift(KEY, images(), 0), images())


def test_shifts_are_uniform_and_independent_in_both_directions() -> None:
    n, pixels = 4500, 1
    x = jnp.broadcast_to(images(1), (n, 16, 12, 3))
    known = crops(np.asarray(x[0]), pixels)
    counts = Counter(known[y.tobytes()] for y in np.asarray(shift(KEY, x, pixels)))
    assert len(counts) == 9
    chi_square = sum((c - n / 9) ** 2 / (n / 9) for c in counts.values())
    assert chi_square < 26.1  # 8 degrees of freedom, p = 0.001


@pytest.mark.parametrize(("h", "expected"), [(28, 3), (7, 0)])
def test_shift_moves_by_up_to_an_eighth_of_the_height(h: int, expected: int) -> None:
    x = images(300, h, h, 1)
    moves = set()
    for before, after in zip(np.asarray(x), np.asarray(shift(KEY, x)), strict=True):
        moves.add(crops(before, expected)[after.tobytes()])
    assert {max(abs(v) for v in axis) for axis in zip(*moves, strict=True)} == {expected}


def test_flip_shift_is_a_flip_and_then_a_shift() -> None:
    flip_key, shift_key = jax.random.split(KEY)
    np.testing.assert_array_equal(flip_shift(KEY, images()), shift(shift_key, flip(flip_key, images())))


def test_flip_and_shift_draw_independently() -> None:
    x = jnp.broadcast_to(images(1), (4000, 16, 12, 3))
    known = crops(np.asarray(x[0]), 2) | {k: (*v, "flipped") for k, v in crops(np.asarray(x[0])[:, ::-1], 2).items()}
    drawn = Counter(known[y.tobytes()] for y in np.asarray(flip_shift(KEY, x)))
    assert len(drawn) == 50
    chi_square = sum((c - 80) ** 2 / 80 for c in drawn.values())
    assert chi_square < 85.4  # 49 degrees of freedom, p = 0.001


@pytest.mark.parametrize("name", NAMES)
def test_a_lane_gets_the_same_images_alone_compiled_and_beside_others(name: str) -> None:
    f, keys, x = AUGMENTATIONS[name], jax.random.split(KEY, 3), images()
    alone = jnp.stack([f(key, x) for key in keys])
    np.testing.assert_array_equal(jax.jit(jax.vmap(f, (0, None)))(keys, x), alone)
    np.testing.assert_array_equal(jax.jit(jax.vmap(f))(keys, jnp.stack([x, x, x])), alone)
    np.testing.assert_array_equal(jax.jit(lambda: jax.lax.map(lambda key: f(key, x), keys))(), alone)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
@pytest.mark.parametrize("name", ["none", "flip", "shift", "flip_shift"])
def test_what_moves_whole_pixels_takes_any_type(name: str, dtype: jnp.dtype) -> None:
    x = images()
    other = (x / 256 if jnp.issubdtype(dtype, jnp.floating) else x).astype(dtype)  # 8 bits: no rounding in bfloat16
    moved = AUGMENTATIONS[name](KEY, other)
    expected = AUGMENTATIONS[name](KEY, x)
    assert moved.dtype == dtype
    np.testing.assert_array_equal(moved, (expected / 256 if moved.dtype != jnp.int32 else expected).astype(dtype))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.int8])
def test_what_computes_new_pixels_refuses_all_but_uint8(dtype: jnp.dtype) -> None:
    x = (images() / 255).astype(dtype)
    whole, still = jnp.eye(2, dtype=jnp.int32) << 14, jnp.zeros(2, jnp.int32)
    for f in (
        lambda x: strong(KEY, x),
        lambda x: affine(x[0], whole, still),
        lambda x: relight(x[0], jnp.int32(0), jnp.int32(256)),
        jax.jit(lambda x: strong(KEY, x)),
        jax.vmap(lambda image: affine(image, whole, still)),
    ):
        with pytest.raises(UsageError, match=f"takes uint8 images, 0 to 255, not {jnp.dtype(dtype)}"):
            f(x)


def test_a_negative_shift_is_refused() -> None:
    with pytest.raises(UsageError, match="shift by -1 pixels"):
        shift(KEY, images(), -1)


def smooth(h: int, w: int) -> np.ndarray:
    """[h, w, 3] uint8 with soft edges, as a photograph has them."""
    noise = np.random.default_rng(1).normal(size=(h, w, 3))
    blurred = ndimage.gaussian_filter(noise, (2, 2, 0))
    return np.round(255 * (blurred - blurred.min()) / np.ptp(blurred)).astype(np.uint8)


@pytest.mark.parametrize("size", [(24, 24), (20, 31)])
@pytest.mark.parametrize("turn", [0.0, 0.25, -0.3])
def test_affine_equals_scipys(turn: float, size: tuple[int, int]) -> None:
    image, zoom, move = smooth(*size), np.array([[0.9], [1.2]]), np.array([2.75, -1.5])
    matrix = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = (np.array(size) - 1) / 2
    offset = centre - matrix @ centre + move
    planes = np.moveaxis(image, -1, 0).astype(float)
    channels = [ndimage.affine_transform(plane, matrix, offset, order=1, mode="nearest") for plane in planes]
    fixed = jnp.asarray(np.round(matrix * 2**14), jnp.int32), jnp.asarray(move * 256, jnp.int32)
    np.testing.assert_allclose(affine(jnp.asarray(image), *fixed), np.stack(channels, -1), atol=1.01)


def test_affine_by_the_identity_changes_nothing_and_by_a_mirror_flips() -> None:
    image, still = images(1)[0], jnp.zeros(2, jnp.int32)
    one = jnp.array([[1, 0], [0, 1]], jnp.int32) * 2**14
    np.testing.assert_array_equal(affine(image, one, still), image)
    np.testing.assert_array_equal(affine(image, one.at[1, 1].multiply(-1), still), image[:, ::-1])


@pytest.mark.parametrize(("light", "contrast"), [(0, 1.0), (-38, 0.8), (38, 1.25)])
def test_relight_is_its_formula(light: int, contrast: float) -> None:
    image = smooth(16, 12)
    mean = image.mean((0, 1))
    expected = np.clip(mean + contrast * (image - mean) + light, 0, 255)
    after = relight(jnp.asarray(image), jnp.int32(light), jnp.int32(round(contrast * 256)))
    np.testing.assert_allclose(after, expected, atol=1.5)


@pytest.mark.slow
def test_strong_views_differ_but_keep_the_picture() -> None:
    image = smooth(32, 32)
    views = np.asarray(strong(KEY, jnp.broadcast_to(jnp.asarray(image), (400, 32, 32, 3))), float)
    assert len({v.tobytes() for v in views}) == 400
    middle = image[:, ::-1].astype(float) / 2 + image / 2  # mirrored half of the time, moved and turned evenly
    mean = views.mean(0)
    blurred = ndimage.gaussian_filter(middle, (3, 3, 0))
    assert np.corrcoef(mean.ravel(), blurred.ravel())[0, 1] > 0.8
    shift_of_light = views.mean((1, 2, 3)) - image.mean()
    assert abs(shift_of_light.mean()) < 6
    assert 15 < shift_of_light.std() < 30  # uniform on +-38 has 22
