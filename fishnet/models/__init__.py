"""Models: plain Linen modules into which activation, norm, convolution and pooling are injected."""

from fishnet.lookup import Table
from fishnet.models.cnn import CNN
from fishnet.models.efficientnet import EfficientNet
from fishnet.models.hybrid import Hybrid
from fishnet.models.mlp import MLP
from fishnet.models.network import Network
from fishnet.models.resnet import ResNet
from fishnet.models.separable import Separable

MODELS: Table[type[Network]] = Table(
    {
        "mlp": MLP,
        "cnn": CNN,
        "resnet": ResNet,
        "separable": Separable,
        "efficientnet": EfficientNet,
        "hybrid": Hybrid,
    }
)
