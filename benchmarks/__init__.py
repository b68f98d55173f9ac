"""Side by side with peers, in one run; nothing in the library imports from here."""

from benchmarks.torchvision_operators import load_torchvision

load_torchvision()
