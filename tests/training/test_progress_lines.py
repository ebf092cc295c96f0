"""The progress of a training on a terminal, in a file and in a notebook."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from training import progress_lines
from training.progress_lines import ProgressLines

LINE = "epoch   1/2  loss 0.5000  accuracy 75.00%  validation 50.00%  100 images/s  1.5 s"
ROW = {
    "loss": 0.5, "accuracy": 0.75, "val_accuracy": 0.5, "images_per_second": 100.0, "seconds": 1.5,
}  # fmt: skip


def run_two_epochs(console, steps=3, interrupted=False):
    record = SimpleNamespace(rows=[], steps=0)
    lines = ProgressLines(console, epochs=2, steps=steps, record=record)
    for epoch in range(2):
        lines.on_epoch_begin(epoch)
        for step in range(steps):
            lines.on_train_batch_end(step, {"loss": 0.25, "accuracy": 0.125})
        if interrupted:
            break
        record.rows.append({**ROW, "epoch": epoch + 1})
        lines.on_epoch_end(epoch, {})
    lines.stop()


@pytest.fixture
def notebook(monkeypatch):
    """Return the list of each output's texts, as a stub of IPython receives them."""
    outputs = {}

    def display(data, raw, display_id):
        assert raw
        assert display_id not in outputs
        outputs[display_id] = [data["text/plain"]]

    def update_display(data, raw, display_id):
        assert raw
        outputs[display_id].append(data["text/plain"])

    stub = SimpleNamespace(display=display, update_display=update_display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=stub))
    monkeypatch.setitem(sys.modules, "IPython.display", stub)
    return outputs


def test_a_file_has_one_dated_line_for_each_epoch():
    file = io.StringIO()
    run_two_epochs(Console(file=file, markup=False, highlight=False))
    first, second = file.getvalue().splitlines()
    dated = re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)  (.*)", first)
    assert dated
    assert dated[2] == LINE
    assert second.endswith(LINE.replace("1/2", "2/2"))


def test_a_terminal_has_a_bar_that_the_line_of_the_epoch_replaces():
    file = io.StringIO()
    run_two_epochs(Console(file=file, force_terminal=True, width=120, highlight=False))
    written = file.getvalue()
    assert re.search("3/3.*loss 0.2500  accuracy 12.50%", written)
    # Erases the bar's line, and does not precede the line of the epoch by a date.
    assert f"\x1b[2K{LINE}\n" in written


def test_a_notebook_has_one_output_for_each_epoch(notebook, monkeypatch):
    monkeypatch.setattr(progress_lines, "_NOTEBOOK_SECONDS", 0)
    file = io.StringIO()
    run_two_epochs(Console(file=file, force_jupyter=True))
    assert not file.getvalue()
    first, second = notebook.values()
    assert first[-1] == LINE
    assert second[-1] == LINE.replace("1/2", "2/2")
    assert re.match(r"epoch   1/2 +0/3 the first step compiles the model", first[0])
    assert [re.search(r"(\d)/3 ", text)[1] for text in first[:-1]] == ["0", "1", "2", "3"]
    assert not any("\x1b" in text or "\n" in text for text in first)


def test_a_notebook_is_not_sent_a_message_for_each_step(notebook, monkeypatch):
    now = iter(range(10_000))
    monkeypatch.setattr(progress_lines, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setattr(progress_lines, "_NOTEBOOK_SECONDS", 250)
    run_two_epochs(Console(file=io.StringIO(), force_jupyter=True), steps=900)
    # The beginning, three times of 251 calls of the clock, and the end.
    assert [len(texts) for texts in notebook.values()] == [5, 5]


def test_an_interrupted_notebook_keeps_where_it_was(notebook, monkeypatch):
    monkeypatch.setattr(progress_lines, "_NOTEBOOK_SECONDS", 0)
    run_two_epochs(Console(file=io.StringIO(), force_jupyter=True), interrupted=True)
    (texts,) = notebook.values()
    assert "3/3" in texts[-1]
