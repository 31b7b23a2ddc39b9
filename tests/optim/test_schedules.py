"""Schedules equal their closed form at every step of a run, and optax's (and PyTorch's) schedules of the same name."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fishnet.errors import UsageError
from fishnet.optim.schedules import (
    SCHEDULES,
    cosine,
    cyclic_sine,
    cyclic_triangular,
    onecycle,
    with_floor,
    with_warmup,
)

# Slow drawing is a busy machine, not a fault.
REPEATABLE = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

STEPS = 400  # the peaks of all shapes are at a step
PROGRESS = np.arange(STEPS + 1) / STEPS


def closed_form(name: str, p: float) -> float:
    if name in ("constant", "plateau"):
        return 1.0
    if name == "step":
        return 0.1 ** (int(p >= 0.5) + int(p >= 0.75))
    if name == "polynomial":
        return (1 - p) ** 2
    if name == "warmup_cosine":
        return 20 * p if p < 0.05 else 0.5 * (1 + math.cos(math.pi * (p - 0.05) / 0.95))
    if name == "cyclic_triangular":
        return 2 * min(4 * p % 1, 1 - 4 * p % 1)
    if name == "cyclic_sine":
        return 0.5 * (1 + math.sin(8 * math.pi * p))
    if name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * p))
    if name == "exponential":
        return 10 ** (-2 * p)
    if p < 0.3:
        return 0.04 + (1 - 0.04) * 0.5 * (1 - math.cos(math.pi * p / 0.3))
    return 4e-6 + (1 - 4e-6) * 0.5 * (1 + math.cos(math.pi * (p - 0.3) / 0.7))


OPTAX = {
    "constant": optax.constant_schedule(1.0),
    "cosine": optax.cosine_decay_schedule(1.0, STEPS),
    "onecycle": optax.cosine_onecycle_schedule(STEPS, 1.0),
    "exponential": optax.exponential_decay(1.0, STEPS, 0.01),
    "step": optax.piecewise_constant_schedule(1.0, {STEPS // 2: 0.1, 3 * STEPS // 4: 0.1}),
    "polynomial": optax.polynomial_schedule(1.0, 0.0, 2, STEPS),
    "warmup_cosine": optax.warmup_cosine_decay_schedule(0.0, 1.0, STEPS // 20, STEPS),
    "plateau": optax.constant_schedule(1.0),
}


def test_names_in_saved_sweeps_are_still_there() -> None:
    names = "constant step exponential polynomial cosine warmup_cosine onecycle cyclic_triangular cyclic_sine plateau"
    assert set(names.split()) <= set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_equals_the_closed_form_at_every_step(name: str) -> None:
    expected = [closed_form(name, p) for p in PROGRESS]
    # A cycle's share of the run is stretched to a whole one, and with it float32's rounding of progress.
    atol = 2e-6 if name.startswith("cyclic") else 2e-7
    np.testing.assert_allclose(SCHEDULES[name](PROGRESS), expected, rtol=2e-6, atol=atol)


@pytest.mark.parametrize("name", OPTAX)
def test_equals_optax_at_every_step(name: str) -> None:
    expected = jax.vmap(OPTAX[name])(jnp.arange(STEPS + 1))
    np.testing.assert_allclose(SCHEDULES[name](PROGRESS), expected, rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize("cycles", [1, 2.5, 7])
def test_cyclic_shapes_take_any_number_of_cycles(cycles: float) -> None:
    for cyclic in (cyclic_triangular, cyclic_sine):
        traced = jax.jit(cyclic)(jnp.asarray(PROGRESS, jnp.float32), jnp.float32(cycles))
        np.testing.assert_allclose(traced, cyclic(PROGRESS, cycles), rtol=1e-6, atol=1e-6)
    turns = np.asarray(cycles * PROGRESS)
    np.testing.assert_allclose(cyclic_triangular(PROGRESS, cycles), 1 - np.abs(2 * (turns % 1) - 1), atol=4e-6)
    np.testing.assert_allclose(cyclic_sine(PROGRESS, cycles), 0.5 + 0.5 * np.sin(2 * np.pi * turns), atol=8e-6)


@pytest.mark.parametrize("cycles", [0, -1.0, float("inf"), float("nan"), np.float32(0)])
def test_cycles_out_of_range_are_refused(cycles: float) -> None:
    for cyclic in (cyclic_triangular, cyclic_sine):
        with pytest.raises(UsageError, match=r"cycles .* is not a positive finite number"):
            cyclic(0.5, cycles)


@pytest.mark.parametrize("floor", [0.0, 0.01, 0.3, 1.0])
def test_a_floor_lifts_the_sine_and_leaves_its_peak(floor: float) -> None:
    expected = floor + (1 - floor) / 2 * (1 + np.sin(8 * np.pi * PROGRESS))
    np.testing.assert_allclose(jax.jit(with_floor)(cyclic_sine(PROGRESS), floor), expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_floor_is_the_shape_itself_bit_for_bit(name: str) -> None:
    shape = SCHEDULES[name](PROGRESS)
    for lifted in (with_floor(shape, 0.0), jax.jit(with_floor)(shape, jnp.float32(0))):
        assert np.asarray(lifted).tobytes() == np.asarray(shape).tobytes()


@pytest.mark.parametrize("floor", [-0.1, 1.1, float("nan"), np.float32(2)])
def test_a_floor_outside_its_range_is_refused(floor: float) -> None:
    with pytest.raises(UsageError, match=r"floor .* is not in \[0, 1\]"):
        with_floor(0.5, floor)


@pytest.mark.parametrize("name", SCHEDULES)
@given(p=st.floats(0, 1, width=32))
@settings(REPEATABLE, max_examples=60)
def test_stays_in_the_unit_interval(name: str, p: float) -> None:
    assert 0 <= float(SCHEDULES[name](p)) <= 1


@pytest.mark.parametrize("p", [50, 1.001, -0.1, np.nan, np.array([0.5, 50]), jnp.int32(2), jnp.arange(3)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_step_or_anything_else_outside_the_run_is_refused(name: str, p: jax.typing.ArrayLike) -> None:
    for f in (SCHEDULES[name], lambda p: with_warmup(SCHEDULES[name], p, 0.1)):
        with pytest.raises(UsageError, match=r"progress .* is not in \[0, 1\]: it is the step divided by"):
            f(p)
    assert jnp.shape(jax.jit(SCHEDULES[name])(p)) == jnp.shape(p)  # nothing can be asked of a traced one


@pytest.mark.parametrize("name", SCHEDULES)
def test_peaks_at_one(name: str) -> None:
    assert float(SCHEDULES[name](PROGRESS).max()) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_integers_and_scalars_are_progress_too(name: str) -> None:
    values = [SCHEDULES[name](p) for p in (0, 0.0, jnp.int32(0), np.float32(0))]
    assert all(v.shape == () and v.dtype == jnp.float32 for v in values)
    assert len({float(v) for v in values}) == 1


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.25, 0.9])
@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_equals_the_closed_form_at_every_step(name: str, warmup: float) -> None:
    expected = np.asarray(
        [p / warmup if p < warmup else closed_form(name, (p - warmup) / (1 - warmup)) for p in PROGRESS]
    )
    got = with_warmup(SCHEDULES[name], PROGRESS, warmup)
    # float32's rounding of progress is stretched by 1 / (1 - warmup) before the shape sees it, then by its slope.
    slope = {"warmup_cosine": 20, "cyclic_triangular": 8, "cyclic_sine": 13}.get(name, 1)
    close = np.isclose(got, expected, rtol=2e-6, atol=4e-7 * slope / (1 - warmup))
    if name == "step":  # which side of a step its progress is rounded to does not matter
        close |= np.min([np.abs((PROGRESS - warmup) / (1 - warmup) - edge) for edge in (0.5, 0.75)], axis=0) < 1e-6
    assert close.all()


def test_warmup_before_cosine_equals_optax_at_every_step() -> None:
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, STEPS // 4, STEPS)
    expected = jax.vmap(schedule)(jnp.arange(STEPS + 1))
    np.testing.assert_allclose(with_warmup(cosine, PROGRESS, 0.25), expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_warmup_is_the_shape_itself_bit_for_bit(name: str) -> None:
    np.testing.assert_array_equal(with_warmup(SCHEDULES[name], PROGRESS, 0.0), SCHEDULES[name](PROGRESS))


def test_progress_and_warmup_may_be_traced_and_vectorised() -> None:
    traces = 0

    def multiplier(progress: jax.Array, warmup: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return with_warmup(onecycle, progress, warmup)

    warmups = jnp.asarray([0.0, 0.1, 0.5])
    compiled = jax.jit(jax.vmap(multiplier, (None, 0)))
    for step in (0, 7, 150):
        expected = [float(with_warmup(onecycle, step / STEPS, float(w))) for w in warmups]
        np.testing.assert_allclose(compiled(step / STEPS, warmups), expected, rtol=1e-6)
    assert traces == 1


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_gradients_are_finite_also_without_warmup(warmup: float) -> None:
    gradients = jax.vmap(jax.grad(lambda p, w: with_warmup(cosine, p, w), argnums=(0, 1)), (0, None))(
        jnp.asarray(PROGRESS, jnp.float32), jnp.float32(warmup)
    )
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("warmup", [-0.1, 1.0, 2, float("nan"), np.float32(1)])
def test_a_warmup_outside_its_range_is_refused(warmup: float) -> None:
    with pytest.raises(UsageError, match=r"warmup .* is not in \[0, 1\)"):
        with_warmup(cosine, 0.5, warmup)
