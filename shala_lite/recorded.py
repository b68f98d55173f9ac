"""A training step that a GPU repeats without Python: recorded once as a CUDA graph, then replayed.

A step of a small model is some thousand kernels of a few microseconds each. Python takes longer to
launch them than a GPU to run them, so the GPU waits. A graph launches them all at once.

What is recorded is what every step does, at fixed shapes: it must not look at a number on its way.
Models that do, such as those that leave out what is missing, take their steps one by one.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

WARM = 3  # steps before the record, in which the libraries make their choices and allocations


class RecordedStep:
    """`take(indices)` as a graph, from its fourth call on; before that, or always, as it is.

    Args:
        take: one optimiser step on the items at those positions; returns what is to be shown.
        generator: on the GPU, the only source of random numbers in `take`.
    """

    def __init__(self, take: Callable[[Tensor], Tensor], generator: torch.Generator) -> None:
        self.take, self.generator = take, generator
        self.device = generator.device
        self.calls, self.recordable = 0, True
        self.graph: torch.cuda.CUDAGraph | None = None
        self.indices = self.shown = torch.empty(0)

    def __call__(self, indices: Tensor, seed: int) -> Tensor:
        """Take the step with noise from `seed`.

        Args:
            indices: (B,) int64 on the GPU, the same B at every call.
            seed: of the generator.
        """
        self.calls += 1
        self.generator.manual_seed(seed)
        if not self.recordable:
            return self.take(indices)
        if self.calls <= WARM:
            return self._warm(indices, seed)
        if self.graph is None:
            self._record(indices)
            self.generator.manual_seed(seed)
        assert self.graph is not None
        self.indices.copy_(indices)
        self.graph.replay()
        return self.shown.clone()

    def _warm(self, indices: Tensor, seed: int) -> Tensor:
        """A step as it is, on a stream of its own; the second tells whether it looks at numbers."""
        side, present = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        side.wait_stream(present)
        with torch.cuda.stream(side):
            if self.calls == 2:
                before = torch.cuda.get_sync_debug_mode()
                with warnings.catch_warnings():  # that the mode is a prototype
                    warnings.simplefilter("ignore")
                    torch.cuda.set_sync_debug_mode("error")
                try:
                    shown = self.take(indices)
                except RuntimeError as error:
                    if "synchronizing" not in str(error):
                        raise
                    self.recordable = False
                finally:
                    torch.cuda.set_sync_debug_mode(before)
                if not self.recordable:  # it stopped halfway, before the weights changed
                    self.generator.manual_seed(seed)
                    shown = self.take(indices)
            else:
                shown = self.take(indices)
        present.wait_stream(side)
        return shown

    def _record(self, indices: Tensor) -> None:
        self.indices = indices.clone()
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(self.generator)
        with torch.cuda.graph(self.graph):
            self.shown = self.take(self.indices)
