"""fishnet in the benchmark: all runs in one program of the sweep engine, over all cores or accelerators."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.serialization import to_state_dict

from benchmarks.baselines.baseline import Baseline
from benchmarks.baselines.nets import ACTIVATIONS, CLASSES, LR, MOMENTUM, NORMS, examples
from fishnet.data import Task
from fishnet.data.task import make_task
from fishnet.host.interrupt import Interrupt
from fishnet.nn.conv_implementations import WITHOUT_KERNELS
from fishnet.probes import PROBES
from fishnet.sweep import Recipe, Run, Sweep
from fishnet.sweep.plan.autotune import autotune_layouts
from fishnet.sweep.plan.cohorts import LayoutChoice
from fishnet.sweep.plan.layout import Layout, make_layouts
from fishnet.sweep.spec.recipe import resolve
from fishnet.sweep.store.checkpoint import Checkpoints


class Fishnet(Baseline):
    """See the module."""

    lane_width: int | str | None = None
    lowering: str | None = None
    share_batches: bool | None = None

    def layout(self) -> Layout:
        """The runs and their layout."""
        runs, tasks = self.work()
        choice = LayoutChoice(self.lane_width, self.lowering, self.share_batches)
        (layout,) = make_layouts(runs, tasks, jax.devices(), choice)
        return layout

    def work(self) -> tuple[list[Run], dict[tuple[str, int], Task]]:
        """The runs, with resolved recipes, and their data."""
        net = self.net
        images, labels = examples(net)
        extra = np.arange(2)
        task = make_task(
            "benchmark",
            np.concatenate([images, images[:2]]),
            np.concatenate([labels, labels[:2]]),
            {"train": np.arange(len(images)), "val": len(images) + extra[:1], "test": len(images) + extra[1:]},
            [str(c) for c in range(CLASSES)],
        )
        recipe = Recipe(
            task="synthetic",
            image_size=net.image[0],
            model=net.model,
            widths=net.widths,
            depth=net.depth,
            norm=net.norm,
            activation=net.activation,
            optimizer="momentum",
            momentum=MOMENTUM,
            lr=LR,
            weight_decay=0.0,
            schedule="constant",
            batch_size=net.batch,
            epochs=10**6,
        )
        # One seed, and hence the same batches for all, as the baselines have it.
        sweep = Sweep(recipe, axes={"lr": list(LR * (1 + 1e-3 * np.arange(net.runs)))}, seeds=1)
        if net.arms:
            sweep = Sweep(recipe, axes={"activation": ACTIVATIONS, "norm": NORMS}, seeds=1)
        runs = [dataclasses.replace(run, recipe=resolve(run.recipe)) for run in sweep.runs()]
        return runs, {("synthetic", net.image[0]): task}

    def prepare(self) -> int:
        """See `Baseline.prepare`."""
        layout = self.layout()
        self.program = layout.bind(jax.devices())
        self.program.compile(["init", "train"], Interrupt())
        self.states, self.step = self.program.init(), 0
        self.work_groups = layout.work(range(len(layout.cohort.runs)))
        self.lr_scales = [np.ones(self.program.lanes, np.float32)] * layout.devices
        self.train(1)
        return int(layout.cohort.params.sum())

    def memory(self) -> dict[str, int]:
        """See `Baseline.memory`; of one device."""
        of: Any = self.program.compiled("train").memory_analysis()
        state = sum(leaf.nbytes for leaf in jax.tree.leaves(self.states[0])) // self.program.lanes
        return {"arguments": of.argument_size_in_bytes, "temporary": of.temp_size_in_bytes, "state a lane": state}

    def train(self, steps: int) -> None:
        """See `Baseline.train`; an epoch a call, as a sweep does it."""
        per_epoch = self.net.batches
        while steps:
            stop = min(self.step + steps, (self.step // per_epoch + 1) * per_epoch)
            self.states = self.program.train(self.states, self.lr_scales, self.work_groups, self.step, stop)
            steps, self.step = steps - (stop - self.step), stop
            if self.step % per_epoch == 0:
                self.end_epoch()

    def end_epoch(self) -> None:
        """Hook after the last step of an epoch; does nothing here."""


class Tuned(Fishnet):
    """fishnet as `--lane-width auto` lays it out."""

    def layout(self) -> Layout:
        """See `Fishnet.layout`."""
        runs, tasks = self.work()
        layouts = autotune_layouts(runs, tasks, None, jax.devices(), lambda _: None, Interrupt())
        (layout,) = make_layouts(runs, tasks, jax.devices(), choices=[tuned.choice for tuned in layouts])
        return layout


class WithoutKernels(Fishnet):
    """fishnet as it trains on a CPU where its compiled kernels cannot be had."""

    lowering = WITHOUT_KERNELS


class Probed(Fishnet):
    """fishnet with all probes of a step, `EVERY` steps apart."""

    EVERY = 50

    def work(self) -> tuple[list[Run], dict[tuple[str, int], Task]]:
        """See `Fishnet.work`."""
        runs, tasks = super().work()
        probes = tuple(name for name, probe in PROBES.items() if probe.kind == "step")
        fields = {"probes": probes, "probe_every": self.EVERY}
        return [dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, **fields)) for run in runs], tasks


class Saving(Fishnet):
    """fishnet with a checkpoint of all runs after every epoch, written while the next one trains."""

    def prepare(self) -> int:
        """See `Baseline.prepare`."""
        count = super().prepare()
        self.folder = tempfile.TemporaryDirectory()
        self.checkpoints = Checkpoints(Path(self.folder.name) / "cohort_0")
        return count

    def end_epoch(self) -> None:
        """See `Fishnet.end_epoch`."""
        self.checkpoints.save({"lanes": [to_state_dict(jax.device_get(lanes)) for lanes in self.states]})

    def finish(self) -> None:
        """See `Baseline.finish`."""
        self.checkpoints.finish()
