"""Trains one recipe: a network on a task, every choice a flag.

    python -m experiments.train
    python -m experiments.train --task mnist-mini --model mlp --widths 300-100 --optimizer adam --lr 0.001 --epochs 10
    python -m experiments.train --model resnet --widths 32-64-128 --image-size 64 --epochs 20 --seeds 3

With several seeds the metrics are means with 95 % intervals. `experiments.predict` then classifies your own photographs
with the trained network.
"""

import sys

from fishnet.cli.main import main
from fishnet.cli.sweep_flags import Experiment

EXPERIMENT = Experiment(name="train", about=__doc__, takes_axes=False)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
