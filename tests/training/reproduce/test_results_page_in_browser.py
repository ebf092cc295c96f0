"""The page of results in a browser: no error, every image is loaded, nothing wider than a phone."""

import html
import json
import re
import subprocess

import pytest
from PIL import Image

from tests.support.browser import find_browser
from training.reproduce.experiment import Claim, Experiment, Outcome, Verdict
from training.reproduce.findings import Finding, JudgedClaim
from training.reproduce.results_report import write_report

pytestmark = pytest.mark.browser

WIDTHS = (1280, 390)
WIDE = "a_name_without_a_place_to_break_it_" * 4
# The page in frames of several widths, whose layout the outer page reads.
FRAMES = """<!DOCTYPE html><link rel="icon" href="data:,"><body>{frames}<pre></pre><script>
addEventListener("load", () => {{
  document.querySelector("pre").textContent = JSON.stringify(
    [...document.querySelectorAll("iframe")].map(({{contentDocument: page, clientWidth}}) => ({{
      width: page.documentElement.scrollWidth,
      images: [...page.images].map((image) => image.naturalWidth),
      shown: page.images[0].clientWidth,
    }})));
}});
</script></body>"""


def write_page(folder, image_width):
    claim = Claim(f"{WIDE} is a claim.", WIDE, f"By eye: {WIDE}.", None)
    experiment = Experiment(
        "squares",
        "Squares",
        "nobody",
        lambda scale: {"one": {"dataset": "digits"}},
        {"cpu": 1, "paper": 1},
        None,
        (claim,),
        lambda path, results: Image.new("RGB", (image_width, 80)).save(path),
        WIDE,
    )
    line = {"condition": "one", "seed": 0, "settings": {}, "measures": {}, "seconds": 1.0}
    verdict = Verdict(Outcome.AGREES, f"{WIDE} 0.123 ± 0.456; difference")
    judged = JudgedClaim(claim, verdict.outcome.value, verdict.evidence)
    write_report([Finding(experiment, "cpu", [line], [judged])], folder / "page.html", folder)
    return folder / "page.html"


@pytest.fixture
def browse(tmp_path):
    """Return a function that opens a file in a browser, and returns its document and its log."""
    browser = find_browser()

    def open_file(file):
        done = subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
                "--window-size=1400,1000", "--dump-dom", file.as_uri(),
            ],
            capture_output=True, text=True, timeout=180, check=True,
        )  # fmt: skip
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return open_file


def test_the_page_is_shown_whole_at_each_width(browse, tmp_path):
    source = html.escape(write_page(tmp_path, 1200).read_text())
    frames = "".join(
        f'<iframe style="border: 0" width="{width}" height="800" srcdoc="{source}"></iframe>'
        for width in WIDTHS
    )
    outer = tmp_path / "outer.html"
    outer.write_text(FRAMES.format(frames=frames))
    document, console = browse(outer)
    assert console == []
    found = json.loads(re.search(r"<pre>(.*)</pre>", document)[1])
    for width, frame in zip(WIDTHS, found, strict=True):
        assert frame["width"] <= width
        assert frame["images"] == [1200, 1218]
    # On a phone the figure is as wide as its panels need, and scrolled.
    assert 390 < found[1]["shown"] < found[0]["shown"] <= 1200


def test_an_error_in_the_console_would_be_seen(browse, tmp_path):
    (tmp_path / "page.html").write_text('<script>console.error("broken")</script>')
    assert "broken" in browse(tmp_path / "page.html")[1][0]
