"""An error in one line."""

import pytest

from fishnet.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a"), "a"),
        (ValueError("\n a \nb\n"), "a "),
        (OSError(2, "No such file"), "[Errno 2] No such file"),
        (AssertionError(), "AssertionError"),
        (KeyError("\n"), r"'\n'"),
    ],
)
def test_the_first_line_that_says_something(error, line):
    assert first_line(error) == line
