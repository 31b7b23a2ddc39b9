"""Wrong changes that the test suite is to notice, each by the text that it replaces."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """One wrong change: `old` stands exactly once in the sources, and `new` takes its place."""

    name: str
    old: str
    new: str
    likely: tuple[str, ...]  # test files, by base name without "test_"


MUTATIONS = [
    # The step.
    Mutation(
        "update_uphill",
        "lambda p, d: p - lr * d, old, down",
        "lambda p, d: p + lr * d, old, down",
        ("planted_causes", "examples"),
    ),
    Mutation(
        "update_skipped_once",
        "return freeze_if_bad(finite, (params, slots), (old, state.slots))",
        "params = jax.tree.map(lambda a, b: jnp.where(state.epoch.steps == 3, b, a), params, old)\n"
        "    return freeze_if_bad(finite, (params, slots), (old, state.slots))",
        ("train_step", "planted_causes"),
    ),
    Mutation(
        "bad_step_not_frozen",
        "finite = (state.first_bad_step < 0) & jnp.isfinite(loss) & jnp.isfinite(grad_norm)",
        "finite = jnp.isfinite(loss) | True",
        ("lanes", "cohorts"),
    ),
    Mutation(
        "frozen_for_one_step_only",
        "(state.first_bad_step < 0) & jnp.isfinite(loss) & jnp.isfinite(grad_norm)",
        "jnp.isfinite(loss) & jnp.isfinite(grad_norm)",
        ("train_step", "lanes"),
    ),
    Mutation(
        "mixup_labels_swapped",
        "share * losses(batch.labels) + (1 - share) * losses(batch.labels[partner])",
        "share * losses(batch.labels[partner]) + (1 - share) * losses(batch.labels)",
        ("mixing", "train_step"),
    ),
    Mutation(
        "same_noise_every_step",
        "return jax.random.fold_in(key, step)",
        "return jax.random.fold_in(key, 0 * step)",
        ("train_step", "fields"),
    ),
    # Optimizers, schedules, constraints.
    Mutation(
        "nesterov_is_momentum",
        "optax.trace(decay=momentum, nesterov=True)",
        "optax.trace(decay=momentum)",
        ("directions", "optimizers"),
    ),
    Mutation(
        "weight_decay_on_biases",
        ", mask=kernel_mask)",
        ")",
        ("directions", "optimizers", "descent"),
    ),
    Mutation(
        "warmup_does_not_shift_the_schedule",
        "shape(jnp.maximum(p - w, 0.0) / (1 - w))",
        "shape(p)",
        ("schedules",),
    ),
    Mutation(
        "clipping_forgets_the_length",
        "return jnp.where(long, limit / jnp.where(long, norm, 1.0), 1.0)",
        "return jnp.where(long, limit, 1.0)",
        ("clipping",),
    ),
    Mutation(
        "ema_not_debiased",
        "weight = fresh / -jnp.expm1(step * jnp.log1p(-fresh))",
        "weight = fresh",
        ("constraints", "evaluated_weights"),
    ),
    Mutation("plateau_one_epoch_late", "cut = bad_epochs > patience", "cut = bad_epochs > patience + 1", ("plateau",)),
    # Layers and losses.
    Mutation(
        "dropout_not_rescaled",
        "x, 1.0 / (1.0 - jnp.asarray(rate, jnp.float32)))",
        "x, jnp.float32(1.0))",
        ("dropout",),
    ),
    Mutation(
        "dropout_of_lanes_not_rescaled",
        "(1.0 / keep, 0.0, 0.0)",
        "(keep / keep, 0.0, 0.0)",
        ("dropout",),
    ),
    Mutation(
        "variance_unbiased",
        "var = jnp.square(t - mean[:, None]).mean(1)",
        "var = jnp.square(t - mean[:, None]).sum(1) / (t.shape[1] - 1)",
        ("norms", "standardize"),
    ),
    Mutation(
        "running_statistics_decay_to_zero",
        "* new, old.value)",
        "* new * 0, old.value)",
        ("norms", "norm_statistics"),
    ),
    Mutation(
        "class_weights_inverted",
        "counts.sum() / (present.sum() * np.where(present, counts, 1))",
        "present.sum() * counts / counts.sum()",
        ("class_numbers", "loss_table"),
    ),
    # Data.
    Mutation(
        "validation_images_in_training",
        "return {name: np.flatnonzero(split_of == i).astype(np.int32) for i, name in enumerate(SPLITS)}",
        "return {n: np.flatnonzero((split_of == i) | (split_of == 2 * i + 1)).astype(np.int32)"
        " for i, n in enumerate(SPLITS)}",
        ("splits", "reef"),
    ),
    Mutation(
        "groups_are_split",
        "np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)",
        "np.unique(np.arange(len(groups)).astype(str), return_inverse=True)",
        ("splits", "folder"),
    ),
    Mutation(
        "program_trains_on_validation_too",
        "(task.images, task.labels, train, task.mean, task.std)",
        '(task.images, task.labels, np.append(train[1:], task.splits["val"][:1]).astype("i4"), task.mean, task.std)',
        ("evaluated_weights", "examples"),
    ),
    # Metrics and statistics.
    Mutation(
        "recall_over_the_wrong_axis",
        '"recall": ratio(diagonal(counts), counts.sum(-1))',
        '"recall": ratio(diagonal(counts), counts.sum(-2))',
        ("classification",),
    ),
    Mutation(
        "confusion_transposed", "labels * classes + predicted", "predicted * classes + labels", ("classification",)
    ),
    Mutation(
        "interval_normal_instead_of_t",
        "stats.t.ppf((1 + confidence) / 2, np.maximum(n - 1, 1))",
        "stats.norm.ppf((1 + confidence) / 2)",
        ("intervals",),
    ),
    Mutation(
        "holm_adjusts_nothing", "np.minimum(1, np.arange(len(p), 0, -1) * p[order])", "p[order]", ("multiplicity",)
    ),
    # The engine.
    Mutation(
        "lanes_read_one_off",
        'leaf.at[members].get(mode="clip")',
        'leaf.at[members + 1].get(mode="clip")',
        ("lanes",),
    ),
    Mutation(
        "lanes_written_in_reverse",
        'leaf.at[members].set(new, mode="drop", unique_indices=False)',
        'leaf.at[members[::-1]].set(new, mode="drop", unique_indices=False)',
        ("lanes",),
    ),
    Mutation(
        "resume_skips_an_epoch",
        "map_runs(lambda now, saved: put(found, now, saved[found]), self.records(), restored.tree)",
        "map_runs(lambda now, saved: put(found, now, saved[found]), self.records(), restored.tree)\n"
        "            late = found[self.history.status[found] == 0]\n"
        "            self.epochs[late] += 1\n"
        "            self.steps[late] += self.program.config.steps_per_epoch",
        ("resume",),
    ),
    Mutation(
        "checkpoint_in_order_of_position",
        "self.layout.gather(self.states, np.arange(len(self.cohort.runs)))",
        "self.layout.gather(self.states, np.argsort(self.layout.position))",
        ("load", "resume"),
    ),
    Mutation(
        "worst_epoch_selected",
        "column[epoch] < best if select_by in LOWER_IS_BETTER else column[epoch] > best",
        "column[epoch] > best if select_by in LOWER_IS_BETTER else column[epoch] < best",
        ("history", "records"),
    ),
    Mutation(
        "last_variables_tested",
        "(state.best_params, state.best_statistics) if best else (state.evaluated,",
        "(state.evaluated, state.evaluated_statistics) if best else (state.evaluated,",
        ("evaluated_weights", "records"),
    ),
    Mutation(
        "halving_keeps_one_too_many",
        "better >= math.ceil((len(others) + 1) / stopping.halving)",
        "better > math.ceil((len(others) + 1) / stopping.halving)",
        ("stopping",),
    ),
    # Commands and reports.
    Mutation("flag_ignored", "lane_width=request.lane_width,", "lane_width=None,", ("main", "request")),
    Mutation(
        "table_shows_the_epoch_before",
        "epoch {run['best_epoch']} of",
        "epoch {run['best_epoch'] - 1} of",
        ("tables",),
    ),
    Mutation(
        "runs_table_shows_the_epoch_before",
        "pd.array([int(b) or None for b in best]",
        "pd.array([int(b) - 1 or None for b in best]",
        ("records",),
    ),
]
