"""The baselines: one Gaussian expert for each modality, combined by a product or a mixture.

They share encoders, decoders, likelihood and training with `fused.FusedVAE`, and its interface.
`depth` and `hidden` size the layers between a modality's feature and its expert, as they size the
fusion network.
"""

from typing import Any

from shala_lite.experts.mmvaeplus import MMVAEPlus
from shala_lite.experts.moe import MoE
from shala_lite.experts.mopoe import MoPoE
from shala_lite.experts.poe import PoE
from shala_lite.vae import MultimodalVAE

EXPERTS: dict[str, type[MultimodalVAE] | Any] = {
    "poe": PoE,
    "moe": MoE,
    "mopoe": MoPoE,
    "mmvaeplus": MMVAEPlus,
}

__all__ = ["EXPERTS", "MMVAEPlus", "MoE", "MoPoE", "PoE"]
