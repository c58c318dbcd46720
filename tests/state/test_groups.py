"""Along a tree every rank gets all messages, by rank; it talks with few others, and those that break off end all."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stopctl.state.groups import FAN, FLAT, groups_of, share_among
from support.teams import at_once

sizes = st.integers(1, 200)
fans = st.integers(2, 9)


def test_a_few_ranks_are_one_group():
    for size in (1, 2, FLAT):
        assert [groups_of(rank, size) for rank in range(size)] == [[range(size)]] * size


@given(sizes, fans)
def test_the_groups_make_a_tree(size, fan):
    """Each level parts the first ranks of the groups below it, down to all ranks and up to rank 0's group."""
    of = [groups_of(rank, size, fan=fan, flat=1) for rank in range(size)]
    for rank, groups in enumerate(of):
        assert all(rank in group and len(group) <= fan for group in groups)
        assert all(group[0] == rank for group in groups[:-1])
        for level, group in enumerate(groups):
            assert all(of[other][level] == group for other in group)
    there = list(range(size))
    for level in range(len(of[0])):
        groups = {of[rank][level] for rank in there}
        assert sorted(rank for group in groups for rank in group) == there
        there = sorted(group[0] for group in groups)
    assert there == [0]


@pytest.mark.parametrize("size", [100, 1000, 10_000])
def test_a_rank_talks_with_few_others_whatever_their_number(size):
    levels = len(groups_of(0, size))
    assert FAN ** (levels - 1) < size <= FAN**levels
    partners = [sum(len(group) - 1 for group in groups_of(rank, size)) for rank in range(0, size, 7)]
    assert max(partners) <= (FAN - 1) * levels
    assert sum(partners) <= len(partners) * (FAN + 1)


class Links:
    """What lies between the ranks: a place for each step of each group."""

    def __init__(self, size, fan):
        self.of = [groups_of(rank, size, fan=fan, flat=1) for rank in range(size)]
        self.steps = Counter()
        self.changed = threading.Condition()
        self.sent = {}
        self.broken = set()

    def meet(self, rank, members, key, message, needed):
        with self.changed:
            self.steps[rank] += 1
            place = self.sent.setdefault((members, key), {})
            place[rank] = message
            self.changed.notify_all()
            while not needed <= place.keys():
                if self.broken & {*members}:
                    raise ConnectionError
                self.changed.wait()
            return place

    def leave(self, rank):
        with self.changed:
            self.broken.add(rank)
            self.changed.notify_all()


class Linked:
    """One rank's end of one group."""

    def __init__(self, links, rank, members):
        self.size = len(members)
        self._links, self._rank, self._members, self._number = links, rank, members, 0

    def gather(self, message):
        found = self._meet(message, {*self._members})
        return [found[rank] for rank in self._members]

    def spread(self, message):
        first = self._members[0]
        return self._meet(message if self._rank == first else b"", {first})[first]

    def _meet(self, message, needed):
        self._number += 1
        return self._links.meet(self._rank, self._members, self._number, message, needed)


def shared(size, fan, messages, lost=()):
    """What each rank got in exchanges one after the other, or its error; those of `lost` never come."""
    links = Links(size, fan)
    results = [[] for _ in range(size)]

    def rank(number):
        groups = [Linked(links, number, members) for members in links.of[number]]
        try:
            for each in messages if number not in lost else ():
                results[number].append(share_among(groups, size, each[number]))
        except ConnectionError as error:
            results[number].append(error)
        finally:
            if number in lost or any(isinstance(got, ConnectionError) for got in results[number]):
                links.leave(number)

    at_once(size, rank)
    return results, links.steps


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), fans, st.data())
def test_every_rank_gets_all_messages_by_rank(size, fan, data):
    texts = st.binary(max_size=40)
    messages = [data.draw(st.lists(texts, min_size=size, max_size=size)) for _ in range(2)]
    results, steps = shared(size, fan, messages)
    assert results == [messages] * size
    levels = len(groups_of(0, size, fan=fan, flat=1))
    assert max(steps.values()) <= 2 * (2 * levels - 1)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 30), fans, st.data())
def test_where_a_rank_is_gone_nobody_waits_for_ever_and_nobody_hears_all(size, fan, data):
    lost = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=2))
    results, _ = shared(size, fan, [[b"x"] * size], lost)
    for rank, got in enumerate(results):
        assert rank in lost or [type(each) for each in got] == [ConnectionError]


@pytest.mark.parametrize("ranks", [2, 8, 32])
def test_the_steps_of_an_exchange_grow_with_the_levels_alone(ranks):
    _, steps = shared(ranks, 2, [[b"x"] * ranks])
    levels = ranks.bit_length() - 1
    assert steps[0] == (1 if levels == 1 else 2 * levels - 1)
    assert sum(steps.values()) <= 5 * ranks
