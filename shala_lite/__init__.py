"""Multimodal generative modelling with one shared latent: the library under the book."""

from shala_lite.datasets import MultimodalDataset, load_dataset
from shala_lite.experts import MMVAEPlus, MoE, MoPoE, PoE
from shala_lite.fused import FusedVAE
from shala_lite.modalities import Modality
from shala_lite.model import ShaLa
from shala_lite.prior import LatentPrior
from shala_lite.training import fit

__version__ = "0.1.0"
__all__ = [
    "FusedVAE",
    "LatentPrior",
    "MMVAEPlus",
    "MoE",
    "MoPoE",
    "Modality",
    "MultimodalDataset",
    "PoE",
    "ShaLa",
    "fit",
    "load_dataset",
]
