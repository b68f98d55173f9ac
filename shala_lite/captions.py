"""Scores of pictures and of sentences about them, whether or not attributes are known.

Where they are, a sentence makes statements, and each is true of a picture or not. Where they are
not, a picture and a sentence belong together if they find each other among others.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from . import attribute_judges as facts
from .attribute_judges import AttributeJudge
from .datasets import MultimodalDataset, sentences
from .retrieval import Matcher, found_among

WORDS = 4  # of a sentence of which no statement is known, for one mention


class CaptionScores:
    """Scores {key: number} of generated pictures and sentences, by two judges.

    Args:
        data: its modalities `image` and `sentence`, and whether it has attributes, are used.
        matcher: finds partners.
        eye: reads attributes off pictures; None where none are known.
        pool: how many a partner is sought among; fewer items make a smaller pool.
        seed: deals the pools.
    """

    def __init__(
        self,
        data: MultimodalDataset,
        matcher: Matcher,
        eye: AttributeJudge | None,
        *,
        pool: int = 100,
        seed: int = 0,
    ) -> None:
        (self.text,) = (m for m in data.modalities if m.kind == "text")
        self.matcher, self.eye, self.pool, self.seed = matcher, eye, pool, seed

    def said(self, ids: Tensor) -> dict[str, Tensor]:
        """What sentences (N, L) state, {attribute: (N,)}, -1 for silence."""
        return facts.statements(self.text, ids)

    def found(self, image: Tensor, ids: Tensor) -> dict[str, float]:
        """Share of pictures that find their sentences, and the other way round, by modality."""
        points = {
            "image": self.matcher.points("image", image),
            self.text.name: self.matcher.points(self.text.name, ids),
        }
        size, shares = min(self.pool, len(ids)), {}
        for one, other in (points, tuple(points)[::-1]):
            deal = torch.Generator().manual_seed(self.seed)
            right = found_among(points[one], points[other], size, deal)
            shares[one] = right.double().mean().item()
        return shares

    def picture(self, image: Tensor, ids: Tensor) -> dict[str, float]:
        """Scores of generated pictures (N, C, H, W) against the sentences (N, L) that were given.

        Keys: `attribute_accuracy@colours_said` and `@all_said`, share of statements that are
        shown, of colours and of all attributes; `retrieval_accuracy@by_picture`.
        """
        scores = {}
        if self.eye is not None:
            said, shown = self.said(ids), self.eye.read(image)
            colours = facts.agreement(said, shown, sentences.COLOURED)
            scores["attribute_accuracy@colours_said"] = colours.share
            scores["attribute_accuracy@all_said"] = facts.agreement(said, shown).share
        return scores | {"retrieval_accuracy@by_picture": self.found(image, ids)["image"]}

    def floor(self, ids: Tensor, known: Mapping[str, Tensor]) -> dict[str, float]:
        """What `picture` gives for the commonest values in `known`, and for chance partners."""
        scores = {}
        if self.eye is not None:
            said = self.said(ids)
            colours = facts.commonest(said, known, sentences.COLOURED)
            scores["attribute_accuracy@colours_said"] = colours.share
            scores["attribute_accuracy@all_said"] = facts.commonest(said, known).share
        return scores | {"retrieval_accuracy@by_picture": 1 / min(self.pool, len(ids))}

    def sentence(
        self, ids: Tensor, image: Tensor, attributes: Mapping[str, Tensor] | None = None
    ) -> dict[str, float]:
        """Scores of generated sentences (N, L) against pictures (N, C, H, W).

        Keys: `attribute_accuracy@stated` and `@stated_colours`, share of statements that are true,
        of all and of those about colours; `attributes_mentioned`, how many a sentence makes;
        `sentences_read`, share of sentences that make any; `retrieval_accuracy@by_sentence`.

        Args:
            ids: token ids.
            image: what they are about.
            attributes: the truth {attribute: (N,)}; None reads it off the pictures.
        """
        scores = {}
        if self.eye is not None:
            said = self.said(ids)
            count = facts.mentions(said)
            truth = self.eye.read(image) if attributes is None else attributes
            scores["attribute_accuracy@stated"] = facts.agreement(said, truth).share
            colours = facts.agreement(said, truth, sentences.COLOURED)
            scores["attribute_accuracy@stated_colours"] = colours.share
            scores["attributes_mentioned"] = count.double().mean().item()
            scores["sentences_read"] = (count > 0).double().mean().item()
        found = self.found(image, ids)[self.text.name]
        return scores | {"retrieval_accuracy@by_sentence": found}

    def variety(self, image: Tensor, ids: Tensor, known: Mapping[str, Tensor]) -> dict[str, float]:
        """How pictures vary where their sentences are silent, by attribute; see `left_open`.

        Without attributes the mean angle between pictures of neighbouring items, in degrees, in
        the matcher's space.
        """
        if self.eye is not None:
            return facts.left_open(self.said(ids), self.eye.read(image), known)
        points = self.matcher.points("image", image)
        cosine = (points * points.roll(1, 0)).sum(1).clamp(-1, 1)
        return {"degrees": cosine.acos().rad2deg().mean().item()}

    def cut(self, ids: Tensor, count: int) -> Tensor:
        """Sentences (N, L) with `count` of their mentions, chosen at random, written anew.

        At random, so that no attribute is mentioned more or less often than others. Without
        attributes, their first words, `WORDS` for each mention.
        """
        vocabulary = self.text.vocabulary
        assert vocabulary is not None  # a text has one
        short = []
        for row, written in enumerate(vocabulary.decode(ids.cpu())):
            if self.eye is None:
                short.append(" ".join(written.split()[: WORDS * count]))
                continue
            rng, said = np.random.default_rng([self.seed, row]), sentences.mentioned(written)
            kept = {name: said[name] for name in rng.permutation(list(said))[:count]}
            short.append(sentences.write(kept, rng))
        return vocabulary.encode(short, self.text.shape[0]).long().to(ids.device)
