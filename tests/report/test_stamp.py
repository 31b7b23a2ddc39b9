"""A report is known to be whole, and of the results that its folder holds."""

import pytest

from fishnet.report.html import write_report
from fishnet.report.stamp import is_current
from fishnet.sweep.store.folder import read_sweep_file, write_sweep_file


@pytest.fixture
def reported(sweep_folder):
    out = sweep_folder(axes={}, seeds=1, epochs=2)
    write_report(out)
    return out


def test_a_report_that_is_not_whole_or_of_other_results_is_not_current(reported):
    assert is_current(reported)
    page, figure = reported / "report.html", reported / "figures" / "roc.svg"
    text, drawing = page.read_bytes(), figure.read_bytes()
    number = text.index(b"</table>")
    for content in (b"", text[:-1], text[: len(text) // 2], text[:number] + b"<b>1</b>" + text[number:], b"{}" + text):
        page.write_bytes(content)
        assert not is_current(reported)
    page.unlink()
    assert not is_current(reported)
    page.mkdir()
    assert not is_current(reported)
    page.rmdir()
    page.write_bytes(text)
    assert is_current(reported)
    for content in (b"", drawing[:-9]):
        figure.write_bytes(content)
        assert not is_current(reported)
    figure.unlink()
    assert not is_current(reported)
    figure.write_bytes(drawing)
    assert is_current(reported)
    # What was written while the sweep went on is not what it came to.
    write_sweep_file(reported, read_sweep_file(reported) | {"finished": "2031-01-01T00:00:00+00:00"})
    assert not is_current(reported)


def test_what_a_page_says_of_itself_does_no_harm_to_it(reported):
    text = (reported / "report.html").read_text(encoding="utf-8")
    assert text.count("<!-- fishnet ") == 1
    assert text.rstrip().endswith("-->") and "</html>" in text
    (reported / "report.html").write_text(text.replace('"figures"', '"pictures"'), encoding="utf-8")
    assert not is_current(reported)


def test_bytes_that_are_no_text_are_written_out(sweep_folder):
    out = sweep_folder(axes={}, seeds=1, epochs=2)
    page = write_report(out, command="python -m experiments.ablation --out /runs/a\udcff")
    assert "/runs/a\\udcff" in page.read_text(encoding="utf-8")
    assert is_current(out)
