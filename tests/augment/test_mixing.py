"""Mixing against loops over images in NumPy, and the distributions of what is drawn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fishnet.augment.mixing import beta_table, cutmix, cutout, mix, mixup
from fishnet.errors import UsageError

KEY = jax.random.key(0)
OFF, UNIFORM = beta_table(0), beta_table(1)
FILL = np.array([7, 100, 250], np.uint8)

mixup_jit, cutmix_jit, cutout_jit, mix_jit = (jax.jit(f) for f in (mixup, cutmix, cutout, mix))


def images(b: int = 64, h: int = 9, w: int = 14, c: int = 3) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (b, h, w, c)), jnp.uint8)


def flags(b: int = 64, h: int = 9, w: int = 14, c: int = 3) -> jax.Array:
    """Images that can be told apart: image i is i everywhere."""
    return jnp.broadcast_to(jnp.arange(b, dtype=jnp.uint8)[:, None, None, None], (b, h, w, c))


def chi_square(drawn: np.ndarray, choices: int) -> float:
    """The p-value of numbers 0 ... choices - 1 being uniform."""
    return stats.chisquare(np.bincount(drawn, minlength=choices)).pvalue


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None))
def small_batches(key: jax.Array, x: jax.Array, shares: jax.Array) -> tuple:
    """Each way of mixing `x`, for each key."""
    return mix(key, x, shares, shares, 0, FILL[:1]), mixup(key, x, shares), cutmix(key, x, shares)


def drawn(shares: np.ndarray, x: jax.Array) -> tuple:
    """What `small_batches` gives for 1500 keys, as NumPy arrays."""
    return jax.tree.map(np.asarray, small_batches(jax.random.split(KEY, 1500), x, shares))


def extent(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns of the one box that is true in `mask` [h, w]; fails if it is not one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    assert mask[box].all()
    return box


@pytest.mark.parametrize("alpha", [1e-6, 0.05, 0.2, 1.0, 4.0, 1e6])
def test_the_table_holds_the_quantiles_of_the_beta_distribution(alpha: float) -> None:
    table = beta_table(alpha)
    exact = stats.beta.ppf((np.arange(257) + 0.5) / 257, alpha, alpha)
    assert (table.shape, table.dtype) == ((257,), np.int32)
    np.testing.assert_allclose(table / 256, exact, atol=0.51 / 256)
    np.testing.assert_array_equal(table + table[::-1], 256)
    assert (np.diff(table) >= 0).all()
    assert table.var() / 65536 == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.003)


def test_a_parameter_of_zero_is_off_and_one_below_is_refused() -> None:
    np.testing.assert_array_equal(OFF, 256)
    for alpha in (-0.1, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="beta distribution of shares must be 0"):
            beta_table(alpha)


def test_mixup_blends_with_the_partner_as_a_loop_does() -> None:
    x = np.asarray(images())
    mixed, partner, share = (np.asarray(a) for a in mixup_jit(KEY, x, UNIFORM))
    assert (mixed.dtype, partner.dtype, share.dtype) == (np.uint8, np.int32, np.float32)
    assert len(np.unique(share)) > 40
    for i, part in enumerate(share):
        exact = part * x[i].astype(float) + (1 - part) * x[partner[i]]
        np.testing.assert_array_equal(mixed[i], np.floor(exact + 0.5))  # exact in float64, halves up


def test_cutmix_takes_a_box_from_the_partner_as_a_loop_does() -> None:
    own, x = np.arange(64), np.asarray(images())
    mixed, partner, share = (np.asarray(a) for a in cutmix_jit(KEY, x, UNIFORM))
    assert (mixed.dtype, partner.dtype, share.dtype) == (np.uint8, np.int32, np.float32)
    foreign = np.asarray(cutmix_jit(KEY, flags(), UNIFORM)[0])[..., 0] != own[:, None, None]
    np.testing.assert_array_equal(mixed, np.where(foreign[..., None], x[partner], x))
    seen = partner != own
    np.testing.assert_allclose(share[seen], 1 - foreign[seen].mean((1, 2)), atol=2**-16)
    for mask in foreign[foreign.any((1, 2))]:
        assert mask[extent(mask)].all()


def test_the_box_of_cutmix_has_the_area_asked_for_and_is_clipped_at_the_edge() -> None:
    h, w = 9, 14
    for kept in (0, 64, 144, 200, 255):
        mixed, partner, share = cutmix_jit(KEY, flags(), np.full(257, kept, np.int32))
        side = np.sqrt(1 - kept / 256)
        tall, wide = int(h * side + 1e-9), int(w * side + 1e-9)
        assert (np.asarray(share) >= 1 - tall * wide / (h * w) - 2**-16).all()
        if tall * wide == 0:
            np.testing.assert_array_equal(share, 1)
            np.testing.assert_array_equal(partner, np.arange(64))
            continue
        foreign = np.asarray(mixed)[..., 0] != np.arange(64)[:, None, None]
        boxes = [extent(mask) for mask in foreign[foreign.any((1, 2))]]
        for rows, columns in boxes:  # smaller only where the edge cuts it
            assert rows.stop - rows.start == tall or rows.start == 0 or rows.stop == h
            assert columns.stop - columns.start == wide or columns.start == 0 or columns.stop == w
        assert kept == 0 or (max(r.stop - r.start for r, _ in boxes), max(c.stop - c.start for _, c in boxes)) == (
            tall,
            wide,
        )


@pytest.mark.parametrize("f", [mixup_jit, cutmix_jit])
def test_off_changes_no_bit(f) -> None:
    x = images()
    mixed, partner, share = f(KEY, x, OFF)
    np.testing.assert_array_equal(mixed, x)
    np.testing.assert_array_equal(partner, np.arange(64))
    np.testing.assert_array_equal(share, np.ones(64, np.float32))


def test_a_share_of_nothing_is_the_partner() -> None:
    x = images()
    mixed, partner, share = mixup_jit(KEY, x, np.zeros(257, np.int32))
    np.testing.assert_array_equal(mixed, x[partner])
    np.testing.assert_array_equal(share, 0)
    np.testing.assert_array_equal(np.sort(partner), np.arange(64))


def test_partners_are_uniform_permutations() -> None:
    _, mixed, cut = drawn(np.zeros(257, np.int32), images(4, 6, 6, 1))
    for _, partner, _ in (mixed, cut):
        assert (np.sort(partner, 1) == np.arange(4)).all()
        kinds, counts = np.unique(partner @ [64, 16, 4, 1], return_counts=True)
        assert len(kinds) == 24
        assert stats.chisquare(counts).pvalue > 1e-3


def test_shares_are_drawn_from_the_table_for_each_image() -> None:
    _, (_, _, share), _ = drawn(np.arange(257, dtype=np.int32), images(4, 6, 6, 1))
    share = np.asarray(share * 256, int)
    assert chi_square(share.ravel(), 257) > 1e-3
    assert abs(np.corrcoef(share[:, :-1].ravel(), share[:, 1:].ravel())[0, 1]) < 0.06  # four standard deviations


def test_the_boxes_of_cutmix_lie_around_a_uniform_pixel() -> None:
    one_pixel = np.full(257, round(256 * (1 - 0.21**2)), np.int32)
    _, _, (mixed, partner, share) = drawn(one_pixel, flags(4, 6, 6, 1))
    foreign = (mixed[..., 0] != np.arange(4)[:, None, None]).reshape(-1, 36)
    seen = (partner != np.arange(4)).ravel()
    np.testing.assert_array_equal(foreign.sum(1), seen)
    assert chi_square(foreign[seen].argmax(1), 36) > 1e-3
    np.testing.assert_array_equal(share, np.float32(35 * 65536 // 36 / 65536))


@pytest.mark.parametrize("size", [1, 4, 30])
def test_cutout_paints_a_square_around_a_uniform_pixel(size: int) -> None:
    b, h, w = 3500, 5, 7
    x = jnp.zeros((b, h, w, 3), jnp.uint8)
    y = np.asarray(cutout_jit(KEY, x, size, FILL))
    painted = (y == FILL).all(-1)
    np.testing.assert_array_equal(y[~painted], 0)
    squares = {}
    for row in range(h):
        for column in range(w):
            mask = np.zeros((h, w), bool)
            top, left = row - size // 2, column - size // 2
            mask[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = True
            squares.setdefault(mask.tobytes(), []).append((row, column))
    counts = dict.fromkeys(squares, 0)
    for mask in painted:
        counts[mask.tobytes()] += 1
    expected = [len(places) * b / (h * w) for places in squares.values()]
    if len(squares) > 1:
        assert stats.chisquare(list(counts.values()), expected).pvalue > 1e-3


def test_cutout_of_nothing_changes_nothing_and_of_less_is_refused() -> None:
    np.testing.assert_array_equal(cutout_jit(KEY, images(), 0, FILL), images())
    for size in (-1, 2.5, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=f"cutout of {size} pixels"):
            cutout(KEY, images(), size, FILL)
    with pytest.raises(UsageError, match="cutout of -1 pixels"):
        mix(KEY, images(), OFF, OFF, -1, FILL)


def test_floats_are_refused_where_pixels_are_computed_and_kept_where_they_are_moved() -> None:
    x = images()
    low = x.astype(jnp.float32) / 256  # exact
    for f in (lambda x: mixup(KEY, x, UNIFORM), lambda x: mix(KEY, x, UNIFORM, OFF, 0, FILL), jax.jit(mix_floats)):
        with pytest.raises(UsageError, match="takes uint8 images, 0 to 255, not float32"):
            f(low)
    mixed, partner, share = cutmix(KEY, low, UNIFORM)
    expected = cutmix(KEY, x, UNIFORM)
    np.testing.assert_array_equal(mixed, np.asarray(expected[0], np.float32) / 256)
    np.testing.assert_array_equal(partner, expected[1])
    np.testing.assert_array_equal(share, expected[2])
    painted = cutout(KEY, low, 4, FILL / np.float32(256))
    np.testing.assert_array_equal(painted, np.asarray(cutout(KEY, x, 4, FILL), np.float32) / 256)


def mix_floats(x: jax.Array) -> tuple:
    return mix(KEY, x, OFF, OFF, 0, FILL)


@pytest.mark.parametrize("fill", [[0.5, 0, 0], [256, 0, 0], [-1, 0, 0], [float("nan"), 0, 0]])
def test_a_fill_that_uint8_cannot_hold_is_refused(fill: list[float]) -> None:
    for f in (lambda: cutout(KEY, images(), 3, fill), lambda: mix(KEY, images(), OFF, OFF, 3, np.array(fill))):
        with pytest.raises(UsageError, match="is no pixel of images of uint8: whole numbers from 0 to 255"):
            f()
    np.testing.assert_array_equal(cutout(KEY, images(), 3, [1.0, 2.0, 255.0]), cutout(KEY, images(), 3, [1, 2, 255]))


@pytest.mark.parametrize("shares", [0.2, np.linspace(0, 1, 257), UNIFORM[:-1], UNIFORM + 1, np.full(257, -1)])
def test_shares_that_are_no_table_are_refused(shares: np.ndarray) -> None:
    for f in (mixup, cutmix, lambda *args: mix(*args, OFF, 0, FILL), lambda k, x, s: mix(k, x, OFF, s, 0, FILL)):
        with pytest.raises(UsageError, match=r"must be a table of fishnet.augment.mixing.beta_table"):
            f(KEY, images(), shares)


def test_a_known_size_is_checked_whatever_its_type() -> None:
    for size in (np.int64(-1), jnp.float32(2.5), np.array(-3), 2**31):
        with pytest.raises(UsageError, match="must be a whole number, 0 or more"):
            cutout(KEY, images(), size, FILL)
    np.testing.assert_array_equal(cutout(KEY, images(), jnp.float32(3), FILL), cutout(KEY, images(), 3, FILL))


def test_mix_with_everything_off_changes_no_bit() -> None:
    x = images()
    mixed, partner, share = mix_jit(KEY, x, OFF, OFF, 0, FILL)
    np.testing.assert_array_equal(mixed, x)
    np.testing.assert_array_equal(partner, np.arange(64))
    np.testing.assert_array_equal(share, np.ones(64, np.float32))


def test_mix_cuts_out_first_and_then_mixes_in_the_one_way_that_is_on() -> None:
    x = images()
    cut = cutout_jit(KEY, x, 4, FILL)
    for got, expected in (
        (mix_jit(KEY, x, OFF, OFF, 4, FILL)[0], cut),
        (mix_jit(KEY, x, UNIFORM, OFF, 4, FILL), mixup_jit(KEY, cut, UNIFORM)),
        (mix_jit(KEY, x, OFF, UNIFORM, 4, FILL), cutmix_jit(KEY, cut, UNIFORM)),
        (mix_jit(KEY, x, UNIFORM, OFF, 0, FILL), mixup_jit(KEY, x, UNIFORM)),
    ):
        jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_mix_takes_one_of_both_with_probability_a_half() -> None:
    together, *each = drawn(UNIFORM, images(4, 6, 6, 1))

    def agree(others: tuple) -> np.ndarray:
        same = [(a == b).reshape(1500, -1).all(1) for a, b in zip(together, others, strict=True)]
        return np.logical_and.reduce(same)

    mixed, cut = (agree(others) for others in each)
    assert (mixed | cut).all()
    assert 672 < mixed.sum() < 828  # four standard deviations
    assert 672 < cut.sum() < 828


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 31, 17, 4)])
def test_any_shape_of_batch_will_do(shape: tuple[int, int, int, int]) -> None:
    x = images(*shape)
    mixed, partner, share = mix_jit(KEY, x, UNIFORM, UNIFORM, 2, np.zeros(shape[-1], np.uint8))
    assert (mixed.shape, mixed.dtype) == (shape, jnp.uint8)
    assert partner.shape == share.shape == shape[:1]
    assert ((share >= 0) & (share <= 1)).all()


def test_a_lane_gets_the_same_images_alone_compiled_and_beside_others() -> None:
    keys, x = jax.random.split(KEY, 4), images()
    tables = np.stack([OFF, UNIFORM, OFF, UNIFORM]), np.stack([OFF, OFF, UNIFORM, UNIFORM])
    lanes = keys, *tables, np.array([0, 3, 0, 4], np.int32)
    alone = [mix_jit(key, x, a, b, size, FILL) for key, a, b, size in zip(*lanes, strict=True)]
    alone = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)

    def lane(key, a, b, size):
        return mix(key, x, a, b, size, FILL)

    for together in (jax.jit(jax.vmap(lane)), jax.jit(lambda *lanes: jax.lax.map(lambda one: lane(*one), lanes))):
        jax.tree.map(np.testing.assert_array_equal, together(*lanes), alone)


def test_the_same_key_gives_the_same_batch_and_another_one_another() -> None:
    first, again, other = (mix_jit(key, images(), UNIFORM, UNIFORM, 3, FILL) for key in (KEY, KEY, jax.random.key(1)))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert all((np.asarray(a) != np.asarray(b)).any() for a, b in zip(first, other, strict=True))
