"""Pretraining: objectives without labels, whose backbone then becomes a classifier's."""

from fishnet.lookup import Table
from fishnet.pretraining.autoencoder import Autoencoder, Denoising
from fishnet.pretraining.contrastive import Contrastive
from fishnet.pretraining.gan import GAN
from fishnet.pretraining.objective import Objective
from fishnet.pretraining.rotation import Rotation
from fishnet.pretraining.transfer import transfer_trunk

__all__ = [
    "GAN",
    "OBJECTIVES",
    "Autoencoder",
    "Contrastive",
    "Denoising",
    "Objective",
    "Rotation",
    "transfer_trunk",
]

OBJECTIVES: Table[type[Objective]] = Table(
    {
        "autoencoder": Autoencoder,
        "denoising": Denoising,
        "rotation": Rotation,
        "contrastive": Contrastive,
        "gan": GAN,
    }
)
