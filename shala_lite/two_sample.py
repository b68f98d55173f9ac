r"""Do two sets of latents come from one distribution? Answers from samples alone.

1. A classifier is told to tell them apart. The area under its curve (AUC) is 0.5 if it cannot,
   1 if it always can (Lopez-Paz and Oquab 2017, arXiv 1610.06545).
2. The squared maximum mean discrepancy, with a permutation test:

       MMD^2 = E k(a, a') + E k(b, b') - 2 E k(a, b),    k(a, b) = exp(-|a - b|^2 / 2 h^2)

   (Gretton et al. 2012, "A kernel two-sample test", JMLR 13).

Samples that repeat the training latents pass both; `nearest_distance` shows them. Everything here
runs on the CPU, wherever the latents are.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

WIDTH, EPOCHS, STEPS, BATCH, RATE, DECAY = 64, 15, 300, 128, 3e-3, 1.0  # of the classifier
LEAST = 100  # rows that a two-sample test takes
STRONG = 0.65  # AUC on the stated perturbation that makes a test worth reading
ROWS = 1024  # rows of a distance matrix held at once


class TwoSampleTest(NamedTuple):
    """A classifier two-sample test with its checks, each an AUC; `rows` a side.

    Args:
        auc: held-out latents against samples of the prior.
        control: held-out against training latents, which should be near 0.5.
        sensitivity: held-out against training latents that are `shifted`.
        dependence: held-out against training latents that are `shuffled`. Near 0.5 too where
            dimensions do not depend on each other, so it tells of the latents and is no check.
    """

    auc: float
    control: float
    sensitivity: float
    dependence: float
    rows: int

    @property
    def strong_enough(self) -> bool:
        """Whether the small shift is seen, and nothing is seen where there should be nothing.

        Near 0.5 is within 0.05, or within three standard deviations 1 / sqrt(6 rows) of an AUC
        between equal distributions where that is more.
        """
        near = max(0.05, 3 / math.sqrt(6 * self.rows))
        return self.sensitivity >= STRONG and abs(self.control - 0.5) <= near


class MMD(NamedTuple):
    """Unbiased squared discrepancy (below 0 by chance at times), and its p-value."""

    mmd: float
    p_value: float


def check_latents(least: int, **sets: Tensor) -> tuple[Tensor, ...]:
    """Sets of latents, each (N, Z), in float64 on the CPU, detached.

    Raises:
        ValueError: fewer than `least` rows, widths that differ, or numbers that are not finite.
    """
    shapes = {name: tuple(z.shape) for name, z in sets.items()}
    if any(len(shape) != 2 or shape[0] < least for shape in shapes.values()):
        raise ValueError(f"latents have shapes {shapes}; expected (N, Z), N at least {least}")
    if len({width for _, width in shapes.values()}) > 1:
        raise ValueError(f"latents have shapes {shapes}; expected one width Z")
    for name, z in sets.items():
        if not z.isfinite().all():
            raise ValueError(f"{name} has {int((~z.isfinite()).sum())} numbers that are not finite")
    return tuple(z.detach().double().cpu() for z in sets.values())


def _some(z: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """`rows` random ones of z, or all in random order."""
    return z[torch.randperm(len(z), generator=generator)[:rows]]


@torch.enable_grad()
def fit_classifier(a: Tensor, b: Tensor, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Train the one small network that all tests use to tell rows of a from rows of b.

    Two hidden layers of 64, AdamW with a strong weight decay and a rate that falls to 0, 15 epochs
    and at least 300 steps, on inputs standardised over both sets. Its logit estimates
    log a(z) / b(z) plus a constant.

    Args:
        a, b: (N, Z) and (N', Z).
        generator: of weights and batches, on the CPU.

    Returns:
        The logit, a function of (N, Z) to (N,), high where rows of `a` are.
    """
    a, b = check_latents(2, a=a, b=b)
    z, target = torch.cat([a, b]).float(), torch.cat([torch.ones(len(a)), torch.zeros(len(b))])
    mean, std = z.mean(0), z.std(0).clamp_min(1e-6)
    x = (z - mean) / std
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise((z.shape[1], WIDTH, WIDTH, 1)):
        # built without its own initial weights, which would draw from the global state
        linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
        nn.init.kaiming_normal_(linear.weight, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.SiLU()]
    net = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    per_epoch = math.ceil(len(x) / BATCH)
    epochs = max(EPOCHS, math.ceil(STEPS / per_epoch))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, epochs * per_epoch)
    for _ in range(epochs):
        for at in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = nn.functional.binary_cross_entropy_with_logits(net(x[at])[:, 0], target[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return lambda latents: net((latents.float().cpu() - mean) / std)[:, 0].detach()


def two_sample_auc(
    real: Tensor, fake: Tensor, *, generator: torch.Generator, rows: int = 2500
) -> float:
    """AUC of a classifier between two sets of latents (N, Z), on halves that it was not trained on.

    Each half is scored by the classifier of the other, and the two areas are averaged. On equal
    distributions 0.5, with a standard deviation of about 1 / sqrt(6 rows). Rows are taken to be
    independent: copies of one item in both halves look like a difference.

    Args:
        real, fake: (N, Z) and (N', Z).
        generator: of the choice of rows, the halves and the training, on the CPU.
        rows: of each side, at most; the smaller side decides. State it with the result.

    Raises:
        ValueError: fewer than 100 rows, or see `check_latents`.
    """
    real, fake = check_latents(LEAST, real=real, fake=fake)
    rows = min(rows, len(real), len(fake))
    (a, b), (c, d) = (_some(z, rows, generator).tensor_split(2) for z in (real, fake))
    areas = []
    for train, held_out in (((a, c), (b, d)), ((b, d), (a, c))):
        logit = fit_classifier(*train, generator)
        truth = torch.arange(2).flip(0).repeat_interleave(torch.tensor([len(z) for z in held_out]))
        areas.append(float(roc_auc_score(truth, logit(torch.cat(held_out)))))
    return sum(areas) / len(areas)


def shifted(z: Tensor, generator: torch.Generator) -> Tensor:
    """The stated small perturbation: all of z (N, Z) moved by 1 along one random direction.

    Units are standard deviations per dimension, so that each moves by about 1 / sqrt(Z). For
    independent normal dimensions the divergence is 1/2 nat and no test exceeds an AUC of 0.76.
    """
    direction = torch.randn(z.shape[1], generator=generator, dtype=z.dtype)
    return z + z.std(0) * direction / direction.norm()


def shuffled(z: Tensor, generator: torch.Generator) -> Tensor:
    """z (N, Z) with every dimension permuted on its own: each is as before, none depends."""
    return z.gather(0, torch.rand(z.shape, generator=generator).argsort(0))


def two_sample_test(
    held_out: Tensor, fake: Tensor, train: Tensor, *, generator: torch.Generator, rows: int = 2500
) -> TwoSampleTest:
    """`two_sample_auc` of held-out latents against samples, and against training latents.

    Args:
        held_out, fake, train: (N, Z) each; all use the same number of rows, the smallest.
        generator, rows: as in `two_sample_auc`.
    """
    held_out, fake, train = check_latents(LEAST, held_out=held_out, fake=fake, train=train)
    rows = min(rows, *map(len, (held_out, fake, train)))
    others = (fake, train, shifted(train, generator), shuffled(train, generator))
    areas = [two_sample_auc(held_out, z, generator=generator, rows=rows) for z in others]
    return TwoSampleTest(areas[0], areas[1], areas[2], areas[3], rows)


def mmd(
    a: Tensor, b: Tensor, *, generator: torch.Generator, permutations: int = 200, rows: int = 2000
) -> MMD:
    """Unbiased squared maximum mean discrepancy of a and b (N, Z), and its permutation p-value.

    Kernel and estimator of Gretton et al. 2012, lemma 6; h is the median distance between rows of
    the two sets pooled. The p-value (1 + #{permuted >= observed}) / (1 + permutations) is the
    probability of so large a value if rows were dealt to a and b at random.

    Args:
        a, b: (N, Z) and (N', Z), at least two rows each.
        generator: chooses rows and permutes, on the CPU.
        permutations: at least 1.
        rows: random ones of each side, at most: memory grows with its square.

    Raises:
        ValueError: no permutation, or see `check_latents`.
    """
    if permutations < 1:
        raise ValueError(f"permutations: {permutations}, expected at least 1")
    a, b = (_some(z, rows, generator) for z in check_latents(2, a=a, b=b))
    n, m = len(a), len(b)
    pool = torch.cat([a, b])
    kernel = torch.cdist(pool, pool).square_()
    bandwidth = torch.pdist(pool).median().clamp_min(1e-6)  # 0 where most rows coincide
    kernel.mul_(-0.5 / bandwidth**2).exp_().fill_diagonal_(0)
    orders = [torch.randperm(n + m, generator=generator) for _ in range(permutations)]
    # one row for each way to deal: 1 for what counts as a; the first is the observed one
    dealt = torch.stack([torch.arange(n + m), *orders]).lt(n).double()
    within_a = (dealt @ kernel * dealt).sum(1)
    of_a = dealt @ kernel.sum(1)  # sums from a to all
    across = of_a - within_a
    within_b = kernel.sum() - of_a - across
    values = within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * across / (n * m)
    more = (values[1:] >= values[0] - 1e-12).sum().item()  # equal up to rounding counts
    return MMD(values[0].item(), (1 + more) / (1 + permutations))


def nearest_distance(z: Tensor, train: Tensor) -> Tensor:
    """Euclidean distance of each z (n, Z) to the nearest row of train (N, Z), shape (n,), float64.

    In standard deviations of `train`, per dimension. Zero is a copy. Compare samples of the prior
    with held-out latents: samples that are much closer have been memorised.

    Raises:
        ValueError: see `check_latents`.
    """
    z, train = check_latents(1, z=z, train=train)
    std = train.std(0, unbiased=False)
    std = torch.where(std > 0, std, 1.0)  # a dimension that never varies keeps its own units
    train = train / std
    return torch.cat([torch.cdist(part / std, train).amin(1) for part in z.split(ROWS)])
