"""Makes a cohort fit its memory: lowers the lane width, then the number of devices side by side, and says so."""

from collections.abc import Callable, Sequence

import jax

from fishnet.errors import UserError
from fishnet.host.machine import Device
from fishnet.host.memory import COPIES, OutOfMemory, available_bytes, tree_bytes
from fishnet.models.linear_layers import measure_linear_layers
from fishnet.optim.optimizer_state import init_optimizer_state
from fishnet.sweep.plan.cohorts import Cohort
from fishnet.sweep.plan.layout import Layout
from fishnet.sweep.plan.networks import bare_model


def fit_memory(layout: Layout, devices: Sequence[Device], note: Callable[[str], None]) -> Layout:
    """Layout at the highest lane width, up to its own, that may fit, before anything is compiled; notes what it lowers.

    What is counted here is certain to be needed. What a program needs exactly is known when it has been compiled (see
    `BoundProgram.compile`).

    Raises:
        UserError: not even one lane at a time fits.
    """
    available, before, problem = available_bytes(devices[0]), layout, None
    need = MemoryEstimate(layout.cohort, devices[0].platform)
    while available is not None and (least := need.least(layout)) > available:
        now = OutOfMemory(least, available, need.least(layout, width=0))
        layout, problem = reduce_layout(layout, devices, now), problem or now
    if problem:
        note(lowering_text(before, layout, problem))
    return layout


def reduce_layout(layout: Layout, devices: Sequence[Device], problem: OutOfMemory, begun: bool = False) -> Layout:
    """Next smaller layout: half the lane width or as much less as the bytes ask for, then half the CPU devices.

    Once training has `begun`, the lane width stays.

    Raises:
        UserError: there is none.
    """
    config = layout.cohort.config
    width = config.lane_width
    if width > 1 and not begun:
        lower = width // 2
        if problem.needed and problem.available:  # so much for each lane: down to what should just fit
            lane = (problem.needed - problem.fixed) / width
            while lower > 1 and problem.fixed + lower * lane > problem.available:
                lower //= 2
        return layout.narrow(lower, min(layout.most_devices or len(devices), len(devices)))
    if layout.devices > 1 and devices[0].platform == "cpu":
        return layout.narrow(width, layout.devices // 2, most_devices=layout.devices // 2)
    together = "one at a time" if width == 1 else f"{width} at a time"
    raise UserError(
        f"out of memory: {len(layout.cohort.runs):,} x {config.recipe.model}, trained {together}, need "
        f"{problem.figures}: choose a smaller batch_size, widths or image_size, or fewer runs"
    ) from problem


def lowering_text(before: Layout, after: Layout, problem: OutOfMemory) -> str:
    """What was lowered, in words: `lane width 16 needs 61 GiB of 24 GiB: lowered to 4`."""
    width, lower = before.cohort.config.lane_width, after.cohort.config.lane_width
    if lower < width:
        text = f"lane width {width} needs {problem.figures}: lowered to {lower}"
        fewer = f" on {after.devices} devices" if after.devices > 1 else " on 1 device"
        return text + (fewer if after.devices < before.devices else "")
    return f"{before.devices} devices side by side need {problem.figures}: lowered to {after.devices}"


class MemoryEstimate:
    """Lower bound on the memory that a cohort needs: of all its devices together on CPU, otherwise of one.

    The state of its lanes and their copies, the images, and for one batch the outputs of convolutions and dense layers,
    which stay until the gradients have been computed.
    """

    def __init__(self, cohort: Cohort, platform: str) -> None:
        self.platform, self.images = platform, cohort.task.images.nbytes
        config = cohort.config
        model = bare_model(cohort.runs[0].recipe, cohort.task)
        self.outputs, _, params = measure_linear_layers(model, config.batch_size, config.image_shape)
        slots = jax.eval_shape(lambda params: init_optimizer_state(config.optimizers, params), params)
        kept = 3 if config.features.average else 2  # trained, best, averaged
        self.lane = kept * tree_bytes(params) + tree_bytes(slots)

    def least(self, layout: Layout, width: int | None = None) -> int:
        """Bytes in a layout, with `width` lanes vectorized together; None: as many as it says."""
        state = self.lane * layout.lanes_per_device
        batch = self.outputs * (layout.cohort.config.lane_width if width is None else width)
        if self.platform != "cpu":
            return self.images + state + batch
        return self.images + layout.devices * ((1 + COPIES) * state + batch)
