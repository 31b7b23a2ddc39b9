"""A backend that computes known answers wrongly is refused before anything is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UserError
from fishnet.nn.convolution import gemm
from fishnet.sweep import Sweep, run_sweep
from fishnet.sweep.run import backend_check as canary
from fishnet.sweep.run.backend_check import CANARIES, check_backend
from tests.sweep.conftest import TINY


@pytest.fixture(autouse=True)
def compile_anew():
    """What is broken below is traced, and not taken from an earlier check, nor left to a later one."""
    for made in (canary.jit_reduction, canary.jit_gradient):
        made.cache_clear()
    yield
    for made in (canary.jit_reduction, canary.jit_gradient):
        made.cache_clear()


@pytest.mark.parametrize("name", CANARIES)
def test_every_canary_passes_here(name):
    assert CANARIES[name]() < 1e-6


def test_a_sound_backend_is_accepted():
    for device in jax.devices():
        check_backend(device)


def lossy_sum(x, *args, **kwargs):
    """What jax 0.10.2 does with the long reduction: the last rows are left out."""
    return usual_sum(x[..., :32512] if x.shape[-1] == 32769 else x, *args, **kwargs)


usual_sum = jnp.sum


def break_reductions(patch):
    patch.setattr(jnp, "sum", lossy_sum)


def break_convolutions(patch):
    patch.setattr(canary, "gemm", lambda *args, **kwargs: gemm(*args, **kwargs) * 1.001)


def give_nan(patch):
    patch.setitem(CANARIES, "sum of nothing", lambda: np.nan)


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (break_reductions, "long vectorised reduction"),
        (break_convolutions, "convolution gradient"),
        (give_nan, "sum of nothing"),
    ],
)
def test_a_broken_backend_is_refused_with_advice(monkeypatch, broken, what):
    broken(monkeypatch)
    with pytest.raises(UserError) as refusal:
        check_backend(jax.devices()[0])
    text = str(refusal.value)
    for part in (f"jax {jax.__version__}", what, "nothing was trained", "constraints.txt", "JAX_PLATFORMS"):
        assert part in text
    assert "\n" not in text


def test_a_sweep_on_a_broken_backend_leaves_nothing_behind(monkeypatch, tmp_path):
    break_convolutions(monkeypatch)
    with pytest.raises(UserError, match="nothing was trained"):
        run_sweep(Sweep(TINY, seeds=1), tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_a_default_precision_below_float32_is_no_mistake():
    """GPUs and TPUs multiply with fewer bits unless told otherwise: the canaries ask for all of them."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CANARIES, "precision", lambda: seen.append(jax.config.jax_default_matmul_precision) or 0.0)
        with jax.default_matmul_precision("bfloat16"):
            check_backend(jax.devices()[0])
    assert seen == ["highest"]
