from __future__ import annotations

import math

from stopctl.cli.canvas import curve


def dots(lines):
    return sum(
        (ord(char) - 0x2800).bit_count() for line in lines for char in line if "\u2800" <= char <= "\u28ff"
    )


def test_a_falling_line_goes_from_top_left_to_bottom_right():
    lines = curve([1.0, 0.0], 14, 3)
    assert len(lines) == 3
    assert lines[0].startswith("1 ┤⠑")
    assert lines[-1].startswith("0 ┤")
    assert len(lines[-1]) == 14


def test_no_line_is_longer_than_the_width():
    values = [math.sin(i) for i in range(1000)]
    assert max(map(len, curve(values, 40, 8))) <= 40


def test_non_finite_values_are_gaps():
    assert curve([math.nan, None, math.inf], 20, 4) == []
    assert dots(curve([1.0, math.nan, 1.0], 20, 4)) == 2
    assert dots(curve([1.0, 1.0, 1.0], 20, 4)) > 10


def test_one_value_is_one_dot():
    assert dots(curve([0.5], 20, 4)) == 1
