"""Fifteen species of reef fish by a residual network at 64 px, with strong augmentation and a one-cycle AdamW.

    python -m configs.reef_resnet

Test split (478 photographs), seeds 0 to 3, mean and 95 % Student t interval: accuracy .965 +- .010, balanced accuracy
.911 +- .025, macro AUC .997 +- .002. 43 minutes for the four runs together (`train_seconds` 720 each), on 2 CPU cores
(AMD EPYC) that were shared with other work, jax 0.10.1, with an earlier version of the engine.

Chosen on the validation split alone, at 20 epochs with one seed: class weights none or inverse, augmentation flip_shift
or strong (`python -m experiments.ablation` with this recipe, `--axis class_weighting=none,inverse --axis
augment=flip_shift,strong --epochs 20 --seeds 1`). Validation accuracy and balanced accuracy: none with strong .957 and
.915, none with flip_shift .955 and .917, inverse with strong .930 and .907, inverse with flip_shift .926 and .925. Of
the first two, alike, strong was taken because it leaves room for 30 epochs. Nothing else was tried to the end (a first
trial with batches of 64 was given up after 5 of 24 epochs); the test split was looked at once, for the settings chosen.
"""

import sys

from fishnet.cli.main import main
from fishnet.cli.sweep_flags import Experiment
from fishnet.sweep.spec.recipe import Recipe

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
