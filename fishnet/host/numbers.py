"""Counts and durations as text."""

import math


def counted(number: int, noun: str) -> str:
    """Formats a number of things: `1 run`, `3 runs`."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def format_count(number: int) -> str:
    """Formats a whole number above 0 for a message: Python does not write those of thousands of digits."""
    return str(number) if number < 10**15 else f"about 10^{math.log10(number):.0f}"


def seconds_text(seconds: float) -> str:
    """Formats a duration as a person says it: 0.4 s, 45 s, 4 min 12 s, 1 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
