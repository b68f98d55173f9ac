"""Torchvision, even where its compiled operators do not fit this build of torch.

MultiVae and torchmetrics import it, and lightning imports torchmetrics; none of its operators is
used here. Without them its import ends at the first whose shape rule it registers; two names are
enough for it to go on.
"""

import sys
from importlib.util import find_spec
from typing import Any

NAMES = ("nms", "qnms")
_kept: list[Any] = []  # an operator lives as long as the library that defined it


def load_torchvision() -> None:
    """Import torchvision if it is installed; before anything else that would import it."""
    if find_spec("torchvision") is None:
        return
    import torch

    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in NAMES:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        import torchvision  # noqa: F401
