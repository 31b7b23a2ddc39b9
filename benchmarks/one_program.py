"""Cost of one program with 8 activations and 5 norms, compared with one program for each run.

    python -m benchmarks.one_program [--steps 12] [--rounds 5]

Compiles the program that trains 8 activations x 5 norms = 40 runs of a CNN 16-32-64 on reef fish at 32 px, and for each
of the 40 a program of its own with that run's components as ordinary static modules: the same network, images, batch
size, convolutions and optimizer, nothing else in it. Then takes turns, round by round: the 40 runs in the one program,
the 40 programs one after the other. Prints seconds to compile, milliseconds a step and run, their ratios, and the
dearest arm. One CPU device, whose matrix products use all cores, for both sides.
"""

import argparse
import dataclasses
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from fishnet.augment.images import AUGMENTATIONS
from fishnet.data import Task, load_task
from fishnet.host.compile import compiler_options
from fishnet.host.interrupt import Interrupt
from fishnet.losses import cross_entropy
from fishnet.nn.conv_implementations import LOWERINGS
from fishnet.optim.optimizers import OPTIMIZERS
from fishnet.optim.schedules import SCHEDULES
from fishnet.sweep import Recipe, Run, Sweep
from fishnet.sweep.plan.cohorts import Cohort, LayoutChoice
from fishnet.sweep.plan.layout import make_layouts
from fishnet.sweep.program.build import plain_model
from fishnet.sweep.program.rng import stream_key
from fishnet.sweep.program.state import DeviceData, pixel_constants
from fishnet.sweep.spec.recipe import resolve

ARMS = {
    "activation": ["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"],
    "norm": ["none", "batch", "layer", "group", "instance"],
}
MOMENTUM = 0.9


def single_program(run: Run, cohort: Cohort, data: DeviceData, steps: int):
    """The training loop of one run, compiled with static components.

    Args:
        run: its recipe, without `auto`.
        cohort: the cohort of all runs, for the data, the keys and the lowering.
        data: of the device.
        steps: training steps a call.

    Returns:
        The compiled function, its arguments, and the seconds that compilation took.
    """
    recipe, task = run.recipe, cohort.task
    model = plain_model(recipe, task.classes, cohort.traced.hparams.norm.shape[1])
    model = dataclasses.replace(model, conv=LOWERINGS[cohort.config.lowering])
    optimizer = OPTIMIZERS[recipe.optimizer].build(MOMENTUM, recipe.weight_decay)
    keys = jnp.asarray(cohort.traced.hparams.keys[run.index])
    total = float(cohort.traced.hparams.total_steps[run.index])

    def train(params, statistics, state, data: DeviceData):
        order = data.train[jnp.argsort(jax.random.bits(stream_key(keys, "order"), data.train.shape))]

        def step(i, carry):
            params, statistics, state, _ = carry
            rows = lax.dynamic_slice(order, (i * recipe.batch_size,), (recipe.batch_size,))
            images = AUGMENTATIONS[recipe.augment](stream_key(keys, "augment", i), data.images[rows])

            def objective(params):
                variables = {
                    "params": params,
                    "constants": pixel_constants(data.mean, data.std),
                    "batch_stats": statistics,
                }
                logits, after = model.apply(variables, images, train=True, mutable=["batch_stats"])
                return cross_entropy(logits, data.labels[rows]).mean(), after.get("batch_stats", {})

            (loss, statistics), grads = jax.value_and_grad(objective, has_aux=True)(params)
            down, state = optimizer.update(grads, state, params)
            lr = recipe.lr * SCHEDULES[recipe.schedule](i / total)
            return jax.tree.map(lambda p, d: p - lr * d, params, down), statistics, state, loss

        return lax.fori_loop(0, steps, step, (params, statistics, state, jnp.float32(0)))

    variables = model.init(jax.random.key(0), jnp.zeros((1, *task.images.shape[1:]), jnp.uint8), train=False)
    params, running = variables["params"], variables.get("batch_stats", {})
    arguments = (params, running, optimizer.init(params), data)
    began = time.perf_counter()
    compiled = jax.jit(train).lower(*arguments).compile(compiler_options=compiler_options(jax.default_backend()))
    return compiled, arguments, time.perf_counter() - began


def main() -> None:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=12, help="training steps a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side, in turns")
    options = parser.parse_args()
    sweep = Sweep(Recipe(task="reef", image_size=32, activation="relu"), axes=ARMS, seeds=1)
    runs = [dataclasses.replace(run, recipe=resolve(run.recipe)) for run in sweep.runs()]
    task: Task = load_task("reef", 32)
    device = jax.devices()[0]
    (layout,) = make_layouts(runs, {("reef", 32): task}, [device], LayoutChoice(lane_width=1))
    cohort, program = layout.cohort, layout.bind([device])
    program.compile(["init"], Interrupt())
    states, lr_scales = program.init(), [np.ones(program.lanes, np.float32)]
    began = time.perf_counter()
    program.compile(["train"], Interrupt())
    together_compile = time.perf_counter() - began
    alone = [single_program(run, cohort, program.data[0], options.steps) for run in runs]

    work = layout.work(range(len(runs)))
    per = 1e3 / (options.steps * len(runs))
    together, apart, by_arm = [], [], []
    for turn in range(options.rounds + 1):
        began = time.perf_counter()
        states = program.train(states, lr_scales, work, 0, options.steps)
        one = time.perf_counter() - began
        arms = []
        for compiled, arguments, _ in alone:
            began = time.perf_counter()
            jax.block_until_ready(compiled(*arguments))
            arms.append(time.perf_counter() - began)
        if turn:  # the first turn warms up
            together.append(one * per)
            apart.append(sum(arms) * per)
            by_arm.append(arms)
    # Each lane of the one program by itself, for the dearest arm.
    lane_ms = []
    for i in range(len(runs)):
        began = time.perf_counter()
        only = dataclasses.replace(work, window=np.array([[i, i + 1]], np.int32))
        states = program.train(states, lr_scales, only, 0, options.steps)
        lane_ms.append((time.perf_counter() - began) / options.steps * 1e3)
    arm_ms = np.median(np.asarray(by_arm), axis=0) / options.steps * 1e3
    ratios = np.asarray(lane_ms) / arm_ms
    worst = int(ratios.argmax())
    singles = [seconds for *_, seconds in alone]
    print(f"device {device.device_kind}, jax {jax.__version__}, optax {optax.__version__}, {options.rounds} rounds")
    print(
        f"compile: one program {together_compile:.1f} s; one of 40 single programs {statistics.median(singles):.1f} s"
    )
    print(f"compile ratio {together_compile / statistics.median(singles):.2f} (all 40 singles: {sum(singles):.0f} s)")
    a, b = statistics.median(together), statistics.median(apart)
    print(
        f"a step and run: {a:.2f} ms together, {b:.2f} ms apart, ratio {a / b:.2f} (rounds {_range(together, apart)})"
    )
    print(
        f"dearest arm: {runs[worst].arm}, {lane_ms[worst]:.2f} ms against {arm_ms[worst]:.2f} ms, "
        f"ratio {ratios[worst]:.2f}"
    )


def _range(a: list[float], b: list[float]) -> str:
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


if __name__ == "__main__":
    main()
