"""Training in processes that a test can kill. Run as a script, it reads one attempt a line.

An attempt is JSON: {"folder": checkpoints, "out": where the result goes, "precision", "ema",
"lease": steps it may take, or null for all}. Each runs in a process of its own, forked from this
one so that torch is imported once; its process id is printed, then how it ended. When its lease is
over it stops and waits to be killed, so that no attempt can end before its killer comes. What it
refuses with a ValueError is written to `refused.txt`.
"""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file
from tiny_models import tiny_dataset, tiny_vae

from shala_lite.training import fit

STEPS = 24


class Leased:
    """Data that stop giving batches after `lease` of them."""

    def __init__(self, data, lease):
        self.data, self.left, self.fingerprint = data, lease, data.fingerprint

    def __len__(self):
        return len(self.data)

    def batch(self, indices):
        if self.left == 0:
            signal.pause()
        self.left -= 1
        return self.data.batch(indices)


def attempt(folder, out, precision, ema, lease):
    """Train stage 1, from the newest checkpoint if there is one, and write what became of it."""
    data = tiny_dataset(20, names="ab", shape=(1, 8, 8))
    model = tiny_vae("ab", (1, 8, 8), alignment=0.1)
    history = fit(
        model,
        data if lease is None else Leased(data, lease),
        steps=STEPS,
        batch_size=8,
        learning_rate=0.01,
        weight_decay=0.01,
        ema=ema,
        precision=precision,
        accelerator="cpu",
        folder=folder,
        checkpoint_seconds=0,
        progress=False,
    )
    save_file(model.state_dict(), Path(out) / "weights.safetensors")
    record = asdict(history)
    record.pop("seconds")
    (Path(out) / "history.json").write_text(json.dumps(record))


def serve():
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            arguments = json.loads(line)
            try:
                attempt(**arguments)
            except ValueError as error:
                (Path(arguments["out"]) / "refused.txt").write_text(str(error))
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
