"""Rendered pages in headless Chromium with the network cut: mathematics, pictures, sliders.

A small book with the real configuration is always built and opened. The whole book is opened as
well where `make book` has rendered it. Without Chromium all of this is skipped.
"""

import functools
import http.server
import importlib.util
import math
import os
import shutil
import threading
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure

from shala_lite import plotting as drawn

REPOSITORY = Path(__file__).resolve().parent.parent
BOOK = REPOSITORY / "book"
BUILT = BOOK / "_build" / "html"
BROWSERS = "chromium chromium-browser google-chrome google-chrome-stable".split()
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --disable-sync --no-first-run "
    "--disable-background-networking --disable-component-update"
).split()
WIDTHS = {"desktop": 1280, "phone": 390}
FRAMES = 3


def chromium() -> str | None:
    named = os.environ.get("SHALA_BROWSER")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        chromium() is None,
        reason="browser tests are skipped: no Chromium here (apt-get install chromium)",
    ),
]


def chart() -> Figure:
    figure = Figure(figsize=(7, 3), dpi=100)
    figure.add_subplot().plot([0, 1], [1, 0])
    return figure


def small_page() -> nbformat.NotebookNode:
    """An executed notebook with what a chapter has: formulas, a figure, a slider, folded code."""
    new = nbformat.v4

    def cell(source, shown=None, **metadata):
        outputs = []
        if shown is not None:
            outputs = [new.new_output("display_data", data=shown._repr_mimebundle_())]
        return new.new_code_cell(source, outputs=outputs, metadata=metadata, execution_count=1)

    levels = np.linspace(0, 255, FRAMES).astype(np.uint8)
    frames = [np.full((28, 28 * 8, 3), level) for level in levels]
    words = {"alt": "eight squares", "caption": r"They brighten as \(t\) grows."}
    numbers = {"alt": "a falling line", "caption": r"The line falls, \(y = 1 - x\)."}
    labels = [f"t = {i}" for i in range(FRAMES)]
    controls = [
        drawn.Control("side", ["left", "right"], "select", start=1),
        drawn.Control("grey", [0, 80, 160]),
    ]

    def square(side, grey):
        picture = np.full((28, 56, 3), 255, np.uint8)
        picture[:, slice(28) if side == "left" else slice(28, None)] = grey
        return picture

    long = r"\sum_{m=1}^{M} \mathbb{E}_{q(z \mid x_1, \ldots, x_M)} \log p_m(x_m \mid z) - "
    text = (
        "# A small page\n\n"
        "The posterior $q(z \\mid x)$ {cite:p}`cui2026shala`, as in {eq}`bound`.\n\n"
        f"$$\n\\log p(x) \\ge {long} {long} \\mathrm{{KL}}(q(z) \\| p(z))\n$$ (bound)\n\n"
        "| a | key | of | great | length |\n|---|---|---|---|---|\n"
        + "| prior/conditional_coherence@2_sources " * 5
        + "|\n"
    )
    cells = [
        new.new_markdown_cell(text),
        cell("figure(chart())", drawn.figure(chart(), **numbers)),
        cell("explore(frames)", drawn.explore(frames, labels, live=False, zoom=3, **words)),
        cell("explore(square)", drawn.explore(square, controls, live=False, zoom=3, **words)),
        cell("x = " + " + ".join(["1"] * 60), tags=["hide-cell"]),
    ]
    kernel = {"name": "python3", "display_name": "Python 3"}
    language = {"name": "python", "pygments_lexer": "ipython3"}
    metadata = {"kernelspec": kernel, "language_info": language}
    return new.new_notebook(cells=cells, metadata=metadata)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A book of one chapter, rendered as the real one is."""
    spec = importlib.util.spec_from_file_location("book_build", BOOK / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    source = tmp_path_factory.mktemp("source")
    for name in ("_config.yml", "references.bib", "references.md"):
        shutil.copy(BOOK / name, source)
    shutil.copytree(BOOK / "_static", source / "_static")
    (source / "_toc.yml").write_text("format: jb-book\nroot: page\nchapters:\n- file: references\n")
    nbformat.write(small_page(), source / "page.ipynb")
    build.mathjax(source / "extra" / "_static" / "mathjax")
    html = build.render(source, tmp_path_factory.mktemp("output"))
    assert list(build.problems(html)) == []
    return html


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield running
        running.close()


class Visit:
    """A page opened from a local server; requests to anywhere else are refused and noted."""

    def __init__(self, browser, folder: Path, width: int) -> None:
        handler = functools.partial(Quiet, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/"
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self.context = browser.new_context(viewport={"width": width, "height": 900})
        self.context.set_default_timeout(300_000)  # a busy machine is slow, not wrong
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "response",
            lambda answer: answer.status >= 400 and self.errors.append(f"missing: {answer.url}"),
        )

    def _route(self, route) -> None:
        if route.request.url.startswith((self.address, "data:", "blob:")):
            route.continue_()
        else:
            self.elsewhere.append(route.request.url)
            route.abort()

    def open(self, name: str):
        """Go to a page and wait until it has loaded and set its formulas."""
        self.page.goto(self.address + name, wait_until="load")
        self.page.evaluate("async () => { if (window.MathJax) await MathJax.startup.promise; }")
        return self.page

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.context.close()
        self.server.shutdown()
        self.server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


def assert_sound(visit: Visit, name: str) -> None:
    """What every page must be: complete without a network, legible at this width."""
    page = visit.open(name)
    where = f"{name} at {page.viewport_size['width']} px"
    formulas = page.locator(".math").count()
    assert page.locator("mjx-container").count() >= formulas, f"{where}: formulas are not set"
    assert page.locator("mjx-merror").count() == 0, f"{where}: a formula is wrong"
    for image in page.locator("img").all():
        alt = image.get_attribute("alt") or ""
        assert alt.strip(), f"{where}: a picture has no alternative text"
        assert not alt.endswith((".png", ".svg")), f"{where}: {alt} is no alternative text"
        assert image.evaluate("image => image.naturalWidth") > 0, f"{where}: {alt} did not load"
    wide, room = page.evaluate("(e => [e.scrollWidth, e.clientWidth])(document.documentElement)")
    assert wide <= room, f"{where}: {wide - room} px stick out"
    assert visit.elsewhere == [], f"{where} asks elsewhere"
    assert visit.errors == [], where


def visible_frames(figure) -> list[int]:
    return [i for i, image in enumerate(figure.locator("img").all()) if image.is_visible()]


def assert_slides(page, figure) -> None:
    """One frame at a time is shown, that of what is chosen; ranges say it and follow the keys."""
    controls = figure.locator("input[type=range], select").all()
    counts = []
    for control in controls:
        name = figure.locator(f"label[for='{control.get_attribute('id')}']").inner_text()
        assert name.strip()
        assert figure.get_by_label(name, exact=True).count() == 1
        control.focus()
        if control.get_attribute("type") == "range":
            counts.append(int(control.get_attribute("max")) + 1)
            page.keyboard.press("Home")
        else:
            counts.append(control.locator("option").count())
            control.select_option(index=0)
    assert figure.locator("img").count() == math.prod(counts)
    assert visible_frames(figure) == [0]
    for i, control in enumerate(controls):
        step = math.prod(counts[i + 1 :])
        control.focus()
        if control.get_attribute("type") == "range":
            output = control.locator("xpath=following-sibling::output")
            first = output.inner_text()
            page.keyboard.press("ArrowRight")
            assert output.inner_text() != first
            assert visible_frames(figure) == [step]
            page.keyboard.press("End")
        else:
            control.select_option(index=counts[i] - 1)
        assert visible_frames(figure) == [step * (counts[i] - 1)]
        if control.get_attribute("type") == "range":
            page.keyboard.press("Home")
        else:
            control.select_option(index=0)


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
def test_a_small_book_is_whole_without_a_network(small, browser, width):
    with Visit(browser, small, width) as visit:
        for name in ("page.html", "references.html"):
            assert_sound(visit, name)
        page = visit.open("page.html")
        # In the text, in the display formula, and in the three captions.
        assert page.locator("mjx-container").count() >= 4
        assert page.locator("figcaption mjx-container").count() == 3
        assert page.locator("mjx-container[display=true]").count() == 1


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
def test_a_slider_moves_in_a_rendered_page(small, browser, width):
    with Visit(browser, small, width) as visit:
        page = visit.open("page.html")
        figure, several = page.locator(".shala-slider").all()
        assert_slides(page, figure)
        assert_slides(page, several)
        control = figure.locator("input[type=range]")
        control.fill("0")
        assert visible_frames(figure) == [0]
        box = control.bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.98, box["y"] + box["height"] / 2)
        assert visible_frames(figure) == [FRAMES - 1]


def test_a_request_to_elsewhere_would_be_seen(browser, tmp_path):
    # Else the tests above could pass by seeing nothing.
    (tmp_path / "page.html").write_text('<img alt="x" src="http://example.org/x.png">')
    with Visit(browser, tmp_path, 400) as visit:
        visit.open("page.html")
        assert visit.elsewhere == ["http://example.org/x.png"]
        with pytest.raises(AssertionError, match="did not load"):
            assert_sound(visit, "page.html")


@pytest.mark.skipif(not BUILT.is_dir(), reason="the whole book is not rendered; make book does it")
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
def test_the_whole_book_is_whole_without_a_network(browser, width):
    names = sorted({path.name for path in BUILT.glob("*.html")} - {"index.html"})
    sliders = 0
    with Visit(browser, BUILT, width) as visit:
        visit.page.goto(visit.address)
        visit.page.wait_for_url("**/intro.html")  # the front door leads to the first page
        for name in names:
            assert_sound(visit, name)
            for figure in visit.page.locator(".shala-slider").all():
                assert_slides(visit.page, figure)
                sliders += 1
    assert sliders >= 1
