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
from fishnet.optim.schedules import SCHEDULES, cosine, onecycle, with_warmup

# Slow drawing is a busy machine, not a fault.
REPEATABLE = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

STEPS = 200
PROGRESS = np.arange(STEPS + 1) / STEPS


def closed_form(name: str, p: float) -> float:
    if name == "constant":
        return 1.0
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
}


def test_the_table_is_complete() -> None:
    assert list(SCHEDULES) == ["constant", "cosine", "onecycle", "exponential"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_equals_the_closed_form_at_every_step(name: str) -> None:
    expected = [closed_form(name, p) for p in PROGRESS]
    np.testing.assert_allclose(SCHEDULES[name](PROGRESS), expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_equals_optax_at_every_step(name: str) -> None:
    expected = jax.vmap(OPTAX[name])(jnp.arange(STEPS + 1))
    np.testing.assert_allclose(SCHEDULES[name](PROGRESS), expected, rtol=2e-5, atol=2e-7)


def test_onecycle_equals_pytorch_at_every_step() -> None:
    torch = pytest.importorskip("torch", reason="torch comes with the bench extra")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    # PyTorch's last step is at progress 1 and its rise is one step short; one more step than ours lines them up.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=STEPS + 1, pct_start=(0.3 * STEPS + 1) / (STEPS + 1), cycle_momentum=False
    )
    expected = []
    for _ in range(STEPS + 1):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        if len(expected) <= STEPS:
            schedule.step()
    np.testing.assert_allclose(onecycle(PROGRESS), expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("name", SCHEDULES)
@given(p=st.floats(0, 1, width=32))
@settings(REPEATABLE, max_examples=60)
def test_stays_in_the_unit_interval(name: str, p: float) -> None:
    assert 0 <= float(SCHEDULES[name](p)) <= 1


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
    expected = [p / warmup if p < warmup else closed_form(name, (p - warmup) / (1 - warmup)) for p in PROGRESS]
    # float32's rounding of progress is stretched by 1 / (1 - warmup) before the shape sees it.
    got = with_warmup(SCHEDULES[name], PROGRESS, warmup)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=4e-7 / (1 - warmup))


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
