"""Refuses runs that cannot learn, and finds frozen norms that normalize nothing."""

from collections.abc import Collection
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from fishnet.errors import UsageError
from fishnet.sweep.program.build import frozen_norms
from fishnet.sweep.program.config import layer_mask
from fishnet.sweep.program.traced_config import Hyperparameters
from fishnet.sweep.program.train_step import schedule_multiplier
from fishnet.sweep.spec.recipe import Recipe


def check_learns(recipe: Recipe, hparams: Hyperparameters) -> None:
    """Refuses a run none of whose steps can change what its network knows of the images.

    Args:
        recipe: without `auto`.
        hparams: its traced values, without the lane axis.

    Raises:
        UsageError: the schedule is at 0 in every step, layers learn at rates below what float32 holds, or every image
            is painted over.
    """
    if recipe.cutout >= 2 * cast(int, recipe.image_size):
        raise UsageError(
            f"cutout: {recipe.cutout} is twice the image size {recipe.image_size} or more: it paints over every image"
        )
    slowest = np.min(hparams.layer_rates.factor)
    if slowest < np.finfo(np.float32).tiny:
        raise UsageError(f"layer_rate: {recipe.layer_rate:g} leaves the first layer a rate below what float32 holds")
    steps = int(hparams.total_steps)
    # No schedule is at 0 in two steps that follow each other within a cycle.
    if recipe.lr_min == 0 and steps <= max(1, recipe.cycles) and not multipliers(hparams, steps).any():
        warm = f" and warmup {recipe.warmup:g}" if recipe.warmup else ""
        raise UsageError(
            f"schedule {recipe.schedule}{warm}: the learning rate is 0 in all of the run's {steps} steps; "
            "train for more epochs or in smaller batches"
        )


def multipliers(hparams: Hyperparameters, steps: int) -> np.ndarray:
    """Factors on the peak learning rate in the first `steps` steps, [step]."""
    return np.asarray(jax.vmap(lambda i: schedule_multiplier(hparams, i / hparams.total_steps))(jnp.arange(steps)))


def unmeasured_norms(recipe: Recipe, sites: int, measured: Collection[str]) -> list[str]:
    """Names of the batch norms that a run freezes, for good or for a time, and whose statistics nothing has measured.

    Args:
        recipe: of the run.
        sites: how many norms its network has.
        measured: names of the norms of which its trunk has statistics; empty without a trunk.
    """
    if recipe.pretrain != "none":
        return []
    here = layer_mask(recipe.norm_layers, sites) & (recipe.norm == "batch")
    norms = [f"norm_{site}" for site in np.flatnonzero(here)] + ["input_norm"] * (recipe.input_norm == "batch")
    frozen = norms if recipe.unfreeze != (0,) else frozen_norms(recipe, norms)
    return [name for name in norms if name in frozen and name not in measured]
