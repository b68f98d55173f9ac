"""Registered metrics: every name has a unit and a direction, and is one word."""

import re

from shala_lite import metrics
from shala_lite.keys import KEYS


def test_every_key_is_a_plain_word_with_a_unit_and_a_direction():
    assert metrics.KEYS is KEYS
    for name, key in KEYS.items():
        assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name), name
        assert not name.endswith("_std"), "that is the deviation over seeds"
        assert key.unit.strip()
        assert key.direction in {"higher", "lower", "neither"}
