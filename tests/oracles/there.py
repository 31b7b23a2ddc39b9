"""What the comparisons with PyTorch share. Whoever imports this is skipped where PyTorch is not installed.

PyTorch computes in float64, so that what is left of a difference is the rounding of float32 here, about 1e-7 of the
numbers that are added up; each tolerance says how many of them there are.
"""

import functools

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is in the bench extra")
F = torch.nn.functional

# Most of the time here is compilation.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
RNG = np.random.default_rng(0)


def stream_key(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def there(x):
    """A leaf of PyTorch's, in float64."""
    return torch.tensor(np.asarray(x, np.float64), requires_grad=True)


def channels_first(x):
    return x.movedim(-1, 1)


def channels_last(x):
    return x.movedim(1, -1)


def gradients(y, dy, *leaves):
    """Of `sum(y dy)`."""
    return [g.numpy() for g in torch.autograd.grad((y * torch.tensor(np.asarray(dy, np.float64))).sum(), leaves)]
