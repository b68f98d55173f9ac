"""Multimodal generative modelling with one shared latent: the library under the book.

The names below are imported when they are first asked for: PyTorch and Lightning take seconds,
which a process that renders views, or prepares files, does not need to wait.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
_MODULES = {
    "datasets": ("MultimodalDataset", "load_dataset"),
    "experts": ("MMVAEPlus", "MoE", "MoPoE", "PoE"),
    "fused": ("FusedVAE",),
    "modalities": ("Modality",),
    "model": ("ShaLa",),
    "prior": ("LatentPrior",),
    "training": ("fit",),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'shala_lite' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"shala_lite.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
