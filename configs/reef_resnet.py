"""Fifteen species of reef fish by a residual network at 64 px, with strong augmentation.

    python -m configs.reef_resnet

Not trained to its end yet: its settings are a first choice and no figure is claimed. An epoch and run takes about 14 s
on 2 CPU cores.
"""

import sys

from experiments._request import Experiment
from experiments._sweep import main
from fishnet.sweep.recipe import Recipe

EXPERIMENT = Experiment(
    name="reef_resnet",
    about=__doc__,
    package="configs",
    recipe=Recipe(
        task="reef",
        image_size=64,
        model="resnet",
        widths=(32, 64, 128),
        depth=2,
        stem_stride=2,
        norm="batch",
        activation="relu",
        optimizer="adamw",
        lr=0.002,
        weight_decay=0.05,
        schedule="onecycle",
        label_smoothing=0.1,
        augment="strong",
        batch_size=32,
        epochs=30,
    ),
    seeds=4,
    takes_axes=False,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
