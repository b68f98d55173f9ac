"""Checkpoints that survive `kill -9` and a damaged disk.

A file is written beside its final name, flushed, and renamed, so that a name in the folder is
always a whole file. Its name carries its own digest, so that damage shows. The last two are kept.
"""

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import torch

KEEP = 2


def _name(step: int, content: bytes) -> str:
    return f"checkpoint-{step:08d}-{hashlib.sha256(content).hexdigest()[:16]}.pt"


def save_checkpoint(folder: Path, identity: dict, state: dict[str, Any]) -> Path:
    """Write `state` (which has a `step`), then drop all but the last two, and halves of others."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"identity": identity, **state}, buffer)
    content = buffer.getvalue()
    path = folder / _name(state["step"], content)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    old = sorted(folder.glob("checkpoint-*.pt"))[:-KEEP]
    for leftover in [*old, *folder.glob("checkpoint-*.partial")]:
        leftover.unlink()
    return path


def load_checkpoint(
    folder: Path, identity: dict, device: torch.device
) -> tuple[Path | None, dict[str, Any] | None]:
    """Read the newest whole checkpoint, or (None, None) where there is none.

    A damaged one is reported and passed over for the one before it.

    Raises:
        ValueError: the checkpoint belongs to a run with other settings than `identity`.
    """
    for path in sorted(folder.glob("checkpoint-*.pt"), reverse=True):
        content = path.read_bytes()
        if path.name != _name(int(path.name.split("-")[1]), content):
            warnings.warn(f"{path} is damaged; looking for an earlier checkpoint", stacklevel=2)
            path.unlink()
            continue
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        found = state.pop("identity")
        changed = {
            key: (found.get(key), value)
            for key, value in identity.items()
            if found.get(key) != value
        }
        if changed:
            listing = ", ".join(f"{k}: {a!r} there, {b!r} now" for k, (a, b) in changed.items())
            raise ValueError(f"folder: {folder} holds a checkpoint of another run ({listing})")
        return path, state
    return None, None
