"""HTML of a page as a list of elements, and pictures to put on it."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

VOID = {"img", "input"}
WORDS = {"alt": "Noise turns into digits", "caption": "What to see"}


class Tree(HTMLParser):
    """Elements (tag, attributes) in order; fails where tags do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def decoded(address):
    head, content = address.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def frames(n=4, seed=0):
    return list(np.random.default_rng(seed).integers(0, 255, (n, 6, 8, 3), np.uint8))


def chart(colour="red"):
    drawn = Figure(figsize=(2, 1), dpi=50)
    drawn.subplots().plot([0, 1], color=colour)
    return drawn


def names(n=4):
    return [f"t = {i / n:.2f}" for i in range(n)]
