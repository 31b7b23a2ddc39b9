"""Refuses runs that cannot learn."""

import jax
import jax.numpy as jnp
import numpy as np

from fishnet.errors import UsageError
from fishnet.sweep.program.build import rate_multiplier
from fishnet.sweep.program.traced_config import Hyperparameters
from fishnet.sweep.spec.recipe import Recipe


def check_learns(recipe: Recipe, numbers: Hyperparameters) -> None:
    """Refuses a run none of whose steps can change what its network knows of the images.

    Args:
        recipe: without `auto`.
        numbers: its traced values, without the lane axis.

    Raises:
        UsageError: the schedule is at 0 in every step, layers learn at rates below what float32 holds, or every image
            is painted over.
    """
    if recipe.cutout >= 2 * recipe.image_size:
        raise UsageError(
            f"cutout: {recipe.cutout} is twice the image size {recipe.image_size} or more: it paints over every image"
        )
    slowest = np.min(numbers.layer_rates.factor)
    if slowest < np.finfo(np.float32).tiny:
        raise UsageError(f"layer_rate: {recipe.layer_rate:g} leaves the first layer a rate below what float32 holds")
    steps = int(numbers.total_steps)
    # No schedule is at 0 in two steps that follow each other within a cycle.
    if recipe.lr_min == 0 and steps <= max(1, recipe.cycles) and not multipliers(numbers, steps).any():
        warm = f" and warmup {recipe.warmup:g}" if recipe.warmup else ""
        raise UsageError(
            f"schedule {recipe.schedule}{warm}: the learning rate is 0 in all of the run's {steps} steps; "
            "train for more epochs or in smaller batches"
        )


def multipliers(numbers: Hyperparameters, steps: int) -> np.ndarray:
    """What the peak learning rate is multiplied by in each of the first `steps` steps, [step]."""
    return np.asarray(jax.vmap(lambda i: rate_multiplier(numbers, i / numbers.total_steps))(jnp.arange(steps)))
