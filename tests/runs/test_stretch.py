from __future__ import annotations

from stopctl.runs.moment import Moment, Place
from stopctl.runs.stretch import Stretch


def stretch(*told: tuple[str, int]) -> Stretch:
    return Stretch([Moment(event, Place(epoch, 0), {}, "") for event, epoch in told])


def epochs(found: Stretch) -> list[int]:
    return [moment.place.epoch for moment in found.standing]


def test_an_opening_voids_what_stands_before_it_at_a_later_place():
    found = stretch(("start", 0), ("report", 1), ("report", 2), ("report", 3), ("resume", 2), ("report", 3))
    assert epochs(found) == [0, 1, 2, 2, 3]
    assert [moment.voided for moment in found.moments] == [False] * 3 + [True] + [False] * 2


def test_an_opening_of_a_later_stretch_goes_back_into_an_earlier_one():
    first, second = stretch(("start", 0), ("report", 4)), stretch(("resume", 3), ("report", 5), ("resume", 4))
    assert second.rewind(None) == Place(3, 0)
    assert first.rewind(Place(3, 0)) == Place(0, 0)
    assert (epochs(first), epochs(second)) == ([0], [3, 4])
    assert first.rewind(Place(9, 0)) == Place(0, 0)  # what was voided stays so
    assert epochs(first) == [0]
