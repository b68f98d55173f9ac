"""The names under which a metric may be recorded, each with its unit and its better direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Key:
    """Unit and better direction of one registered metric."""

    unit: str
    direction: Literal["higher", "lower", "neither"]


KEYS: dict[str, Key] = {
    "conditional_coherence": Key("share", "higher"),
    "unconditional_coherence": Key("share", "higher"),
    "pairwise_coherence": Key("share", "higher"),
    "reconstruction_coherence": Key("share", "higher"),
    "class_entropy": Key("nats", "higher"),
    "judge_accuracy": Key("share", "higher"),
    "frechet_judge": Key("squared standard deviations", "lower"),
    "frechet_ratio": Key("times that of the reference", "lower"),
    "coherence_difference": Key("share", "higher"),
    "odd_one_share": Key("share", "lower"),
    "diversity_ratio": Key("times that of real items", "neither"),
    "attribute_agreement": Key("share", "higher"),
    "attribute_distance": Key("total variation", "lower"),
    "attribute_accuracy": Key("share", "higher"),
    "attributes_mentioned": Key("attributes per sentence", "neither"),
    "sentences_read": Key("share", "higher"),
    "retrieval_accuracy": Key("share", "higher"),
    "attribute_blur": Key("pixel units", "lower"),
    "word_match": Key("share", "higher"),
    "fid": Key("squared Inception units", "lower"),
    "precision": Key("share", "higher"),
    "recall": Key("share", "higher"),
    "c2st_auc": Key("area under the curve", "lower"),
    "mmd": Key("squared discrepancy", "lower"),
    "mmd_p_value": Key("probability", "neither"),
    "kl_aggregated_prior": Key("nats", "lower"),
    "mutual_information": Key("nats", "neither"),
    "posterior_spread": Key("standard deviations of z", "neither"),
    "nearest_distance": Key("standard deviations", "neither"),
    "log_likelihood": Key("nats per item", "higher"),
    "elbo": Key("nats per item", "higher"),
    "reconstruction": Key("nats per item", "higher"),
    "kl": Key("nats per item", "neither"),
    "probe_accuracy": Key("share", "higher"),
    "probe_macro_f1": Key("share", "higher"),
    "neighbour_agreement": Key("share", "higher"),
    "source_agreement": Key("share", "higher"),
    "silhouette": Key("between -1 and 1", "higher"),
    "hull_score": Key("share of the ceiling", "higher"),
    "hull_iou": Key("intersection over union", "higher"),
    "outline_overlap": Key("intersection over union", "higher"),
    "colour_taken": Key("share", "higher"),
    "silhouette_area": Key("share of pixels", "neither"),
    "view_agreement": Key("share", "higher"),
    "attribute_entropy": Key("nats", "higher"),
    "same_object_accuracy": Key("share", "higher"),
    "nfe": Key("evaluations per sample", "lower"),
    "guidance": Key("weight", "neither"),
    "samples": Key("items", "neither"),
    "parameters": Key("numbers", "neither"),
    "seconds": Key("s", "lower"),
    "memory_mib": Key("MiB", "lower"),
    "peak_memory_mib": Key("MiB", "lower"),
    "seconds_exponent": Key("power of M", "lower"),
    "memory_exponent": Key("power of M", "lower"),
    "parameters_exponent": Key("power of M", "lower"),
    "items_per_second": Key("items per second", "higher"),
}
