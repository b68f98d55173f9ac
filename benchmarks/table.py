"""The results of a run as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.throughput import PAIRS

# Head of the column, and the key of a model's scores or of its result.
QUALITY = (
    ("conditional", "conditional_coherence", ".3f"),
    ("unconditional", "unconditional_coherence", ".3f"),
    ("Frechet", "frechet_judge", ".1f"),
    ("entropy", "class_entropy", ".2f"),
    ("steps", "steps", ",d"),
    ("CPU s", "cpu_seconds", ",.0f"),
)
COST = (
    ("items/s trainer", "trainer", ",.0f"),
    ("items/s step", "step", ",.0f"),
    ("peak MiB", "peak_memory_mib", ",.0f"),
    ("parameters", "parameters", ",d"),
    ("seconds", "seconds", ",.0f"),
)
BF16 = "bf16-mixed"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their heads, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def speeds(throughput: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Items per second {model: {way: number}}; bf16 is a model of its own, `name bf16-mixed`."""
    found: dict[str, dict[str, float]] = {}
    for row in throughput:
        name = row["model"] if row["precision"] == "32-true" else f"{row['model']} {BF16}"
        found.setdefault(name, {})[row["way"]] = row["items_per_second"]
    return found


def main_table(results: Mapping[str, Any]) -> str:
    """A row for each model: scores, beside the judges' ceiling and floor, then costs."""
    speed = speeds(results["throughput"])
    rows: dict[str, dict[str, Any]] = {}
    for kind in ("judge", "floor"):
        prefix = f"{kind}/"
        scores = results["judges"]["scores"].items()
        rows[kind] = {k.removeprefix(prefix): v for k, v in scores if k.startswith(prefix)}
    for model in results["models"]:
        name = model["model"]
        rows[name] = {**model, **model["scores"], **speed.pop(name, {})}
    rows |= speed  # what was timed and not trained: bf16
    return "\n\n".join(_columns(rows, columns) for columns in (QUALITY, COST))


def _columns(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[tuple[str, str, str]]) -> str:
    """The rows that have any of these columns."""
    body = [
        [name, *(format(row[key], form) if key in row else "" for _, key, form in columns)]
        for name, row in rows.items()
        if any(key in row for _, key, _ in columns)
    ]
    return text_table(["model", *(head for head, _, _ in columns)], body)


def ratio_table(throughput: Sequence[Mapping[str, Any]]) -> str:
    """Ours over MultiVae's in items per second, in each way of taking a step."""
    theirs = dict(PAIRS)
    rows = [
        [
            f"{row['model']} {row['precision']} / {theirs[row['model']]}",
            row["way"],
            f"{row['ratio']:.2f}",
            f"{row['cpu_ratio']:.2f}",
        ]
        for row in throughput
        if "ratio" in row
    ]
    return text_table(["items per second, ours / MultiVae's", "way", "ratio", "CPU time"], rows)


def agreement_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same samples scored by both libraries."""
    body = [
        [r["score"], f"{r['ours']:.6f}", f"{r['multivae']:.6f}", f"{r['difference']:.1e}"]
        for r in rows
    ]
    return text_table(["score of one set of samples", "ours", "MultiVae's", "difference"], body)
