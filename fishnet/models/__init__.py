"""Models: plain Linen modules into which activation, norm, convolution and pooling are injected."""

import flax.linen as nn

from fishnet.models.cnn import CNN
from fishnet.models.mlp import MLP
from fishnet.models.resnet import ResNet
from fishnet.models.separable import Separable

MODELS: dict[str, type[nn.Module]] = {"mlp": MLP, "cnn": CNN, "resnet": ResNet, "separable": Separable}
