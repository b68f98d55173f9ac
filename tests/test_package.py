"""The package itself: its names, and what it costs to import."""

import subprocess
import sys

import pytest

import shala_lite


def test_every_public_name_is_there_and_listed():
    for name in shala_lite.__all__:
        assert getattr(shala_lite, name).__name__ == name
    assert set(shala_lite.__all__) <= set(dir(shala_lite))
    assert set(shala_lite._WHERE) == set(shala_lite.__all__)
    with pytest.raises(AttributeError, match="module 'shala_lite' has no attribute 'ShaLla'"):
        shala_lite.ShaLla  # noqa: B018


def test_bookkeeping_is_imported_without_torch():
    code = "import sys, shala_lite.publish, data_scripts.download; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
