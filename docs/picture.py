"""Draw the picture of the README: sets that the quick model of chapter 5 generates.

python docs/picture.py      after `make book`, which trains it; otherwise it is trained first
"""

from pathlib import Path

import torch
from PIL import Image

from shala_lite import experiments, metrics, plotting, profiles, runs

CHAPTER, COLUMNS, ZOOM = "05_diffusion_prior", 14, 2


def main() -> None:
    """Write docs/generated.png."""
    run = runs.Run(CHAPTER, profiles.resolve(CHAPTER, "quick"), metrics.KEYS)
    experiment = experiments.Experiment(run)
    noise = torch.Generator(experiment.device).manual_seed(0)
    sets = experiment.model().generate(COLUMNS, generator=noise)
    image = Image.fromarray(plotting.mosaic(list(sets.values())))
    target = Path(__file__).with_name("generated.png")
    image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.NEAREST).save(target)
    print(target)


if __name__ == "__main__":
    main()
