"""Each entry of the table gives the figures that it says, over the axes that it says, on any model."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.losses import cross_entropy
from fishnet.models import MODELS
from fishnet.nn.norms import NORMS
from fishnet.probes import PROBES, Batches, Net, Step, layer_names, record_forward, site_names
from fishnet.probes.layers import kernel_layers
from fishnet.probes.table import AXES
from tests.probes.conftest import variables_of

MODEL = MODELS["resnet"](classes=3, widths=(8, 8), depth=1, norm=NORMS["batch"], se_reduction=4)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
LABELS = np.arange(8, dtype=np.int32) % 3


@pytest.fixture(scope="module")
def setting():
    variables = variables_of(MODEL, shape=(1, 8, 8, 3))

    def run():
        return MODEL.apply(variables, IMAGES, train=False)

    layers = layer_names(run)
    sizes = {
        "run": (),
        "layer": (len(layers),),
        "kernel": (len(kernel_layers(variables["params"], layers)),),
        "site": (len(site_names(run)),),
        "class": (3,),
    }
    return variables, layers, sizes


@pytest.mark.parametrize("name", PROBES)
def test_an_entry_gives_what_it_says(name, setting):
    probe, (variables, layers, sizes) = PROBES[name], setting
    if probe.kind == "failure":
        assert probe.measure is None and not probe.gives
        return

    def measured(variables):
        if probe.kind == "step":
            params = variables["params"]
            seen = record_forward(lambda: MODEL.apply(variables, IMAGES, train=False))
            return probe.measure(Step(layers, params, params, params, params, seen))
        net = Net(MODEL, variables, cross_entropy, jnp.float32(0.1))
        return probe.measure(net, Batches.of(IMAGES, LABELS, 4))

    shapes = jax.eval_shape(measured, variables)
    assert {name: shape.shape for name, shape in shapes.items()} == {
        name: sizes[measure.axis] for name, measure in probe.gives.items()
    }
    assert all(shape.dtype == jnp.float32 for shape in shapes.values())


def test_entries_are_described():
    for name, probe in PROBES.items():
        assert probe.kind in ("step", "epoch", "failure"), name
        assert probe.cost and probe.description.endswith("."), name
        assert "Source:" in inspect.getdoc(probe.function) or name == "first_bad", name
        assert all(measure.axis in AXES and measure.unit for measure in probe.gives.values())
        assert "-" not in name and "+" not in name


def test_no_figure_has_two_meanings():
    figures = [figure for probe in PROBES.values() for figure in probe.gives]
    assert len(set(figures)) == len(figures)


def test_what_is_made_for_a_probe_is_what_it_needs(setting):
    """A step without the forward pass or the last gradient will do for those that do not say they need it."""
    variables, layers, _ = setting
    params = variables["params"]
    for probe in PROBES.values():
        if probe.kind == "step" and not probe.needs:
            jax.eval_shape(lambda p, probe=probe: probe.measure(Step(layers, p, p, None, p, None)), params)
