"""Sharpness of the loss: the largest eigenvalue of its Hessian, from Hessian-vector products."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from fishnet.errors import UsageError

STEPS = 16  # products with the Hessian
LENGTH = 1e-30  # below which a vector counts as zero


class TopEigenvalue(NamedTuple):
    """Largest eigenvalue and its error bound, from `top_eigenvalue`."""

    value: Array  # [] float32, the largest eigenvalue of the search space: never above the true one but for rounding
    error: Array  # [] float32, an eigenvalue is at most so far from `value`


def hessian_product(loss: Callable[[Any], Array], params: Any, vector: Any) -> Any:
    """Hessian-vector product of a loss, without the Hessian.

        H v = grad_p <grad L(p), v>

    The gradient of a gradient: kernels with gradients of their own (pooling, moments, switched activations) allow
    nothing else. Costs about as much as two gradients.

    Args:
        loss: `f(params) -> []`.
        params: where, a tree of arrays.
        vector: a tree like `params`.

    Returns:
        A tree like `params`.

    Source: Pearlmutter, "Fast Exact Multiplication by the Hessian", Neural Computation 1994.
    """

    def along(params: Any) -> Array:
        grads = jax.grad(loss)(params)
        pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(vector), strict=True)
        return cast(Array, sum(jnp.vdot(g, v) for g, v in pairs))

    return jax.grad(along)(params)


def lanczos(
    product: Callable[[Array], Array], start: Float[Array, " n"], steps: int
) -> tuple[Float[Array, " steps"], Float[Array, " steps"]]:
    """Lanczos' method: projects a symmetric A on the space of `start`, `A start`, ...; the result is tridiagonal.

        beta_j q_(j+1) = A q_j - alpha_j q_j - beta_(j-1) q_(j-1),   alpha_j = q_j' A q_j

    Its largest eigenvalues are close to those of A after a few steps. Vectors are not made orthogonal again, which in
    floating point makes copies of eigenvalues that have been found but moves none.

    Args:
        product: `f(v [n]) -> A v [n]`.
        start: not zero.
        steps: 1 or more.

    Returns:
        The diagonal alpha and the off-diagonal beta; the last beta is that of the remaining vector.

    Raises:
        UsageError: fewer than 1 step.

    Source: Lanczos, "An Iteration Method for the Solution of the Eigenvalue Problem", 1950; Paige, "The Computation of
    Eigenvalues and Eigenvectors of Very Large Sparse Matrices", 1971.
    """
    if steps < 1:
        raise UsageError(f"Lanczos needs 1 step or more, got {steps}")

    def step(j: Array, state: tuple) -> tuple:
        before, q, beta, alphas, betas = state
        v = product(q)
        alpha = jnp.vdot(q, v)
        v = v - alpha * q - beta * before
        beta = jnp.linalg.norm(v)
        # A space that is used up has no further direction. Its entry must not become the largest eigenvalue.
        done = jnp.linalg.norm(q) < 0.5
        alphas, betas = alphas.at[j].set(jnp.where(done, alphas[0], alpha)), betas.at[j].set(beta)
        return q, jnp.where(beta > LENGTH, v / jnp.where(beta > LENGTH, beta, 1.0), 0.0), beta, alphas, betas

    start = start / jnp.linalg.norm(start)
    zeros = jnp.zeros((steps,), start.dtype)
    return lax.fori_loop(0, steps, step, (jnp.zeros_like(start), start, zeros[0], zeros, zeros))[3:]


def top_eigenvalue(loss: Callable[[Any], Array], params: Any, key: PRNGKeyArray, steps: int = STEPS) -> TopEigenvalue:
    """Largest eigenvalue of the Hessian of a loss, its sharpness, by `steps` steps of Lanczos' method.

        lambda = max over unit v of v' H v

    Gradient descent with rate lr is stable where lambda < 2 / lr; trained long, networks tend to hover just above it.
    With momentum beta the limit is 2 (1 + beta) / lr, and adaptive optimizers have one for the rescaled Hessian.

    Args:
        loss: `f(params) -> []`, on a fixed batch.
        params: where, a tree of floating-point arrays.
        key: draws the first vector.
        steps: products with the Hessian, 1 or more.

    Returns:
        The eigenvalue, in units of the loss over those of a squared weight, and how far from one it can be.

    Raises:
        UsageError: fewer than 1 step.

    Source: Cohen et al., "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability",
    arXiv:2103.00065; Ghorbani, Krishnan and Xiao, arXiv:1901.10159.
    """
    flat, unravel = ravel_pytree(params)

    def product(v: Array) -> Array:
        return ravel_pytree(hessian_product(loss, params, unravel(v)))[0]

    alphas, betas = lanczos(product, jax.random.normal(key, flat.shape, flat.dtype), steps)
    off_diagonal = betas[:-1]
    values, vectors = jnp.linalg.eigh(jnp.diag(alphas) + jnp.diag(off_diagonal, 1) + jnp.diag(off_diagonal, -1))
    return TopEigenvalue(values[-1], betas[-1] * jnp.abs(vectors[-1, -1]))
