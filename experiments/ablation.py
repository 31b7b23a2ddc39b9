"""The main job: which activation with which norm? Every combination, each with several seeds, in one compiled program.

    python -m experiments.ablation
    python -m experiments.ablation --task mnist-mini --model mlp --axis init=he_normal,glorot_normal --epochs 4
    python -m experiments.ablation --task folder:/path/to/photos --axis optimizer=sgd,momentum,adam --seeds 5

By default a small CNN learns 15 species of reef fish from real under-water photographs, with 4 activations, 4 norms and
3 seeds: 48 networks. Validation chooses the epoch and ranks the arms; test figures are reported for what it chose.
Stopped at any moment, the same command goes on where it was; finished, it prints its table again.
"""

import sys

from experiments._request import Experiment
from experiments._sweep import main
from fishnet.sweep.recipe import Recipe

EXPERIMENT = Experiment(
    name="ablation",
    about=__doc__,
    recipe=Recipe(task="reef", model="cnn", widths=(16, 32, 64), batch_size=32, epochs=6),
    axes={"activation": ("relu", "leaky_relu", "elu", "gelu"), "norm": ("none", "batch", "layer", "group")},
    seeds=3,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
