"""What is a key of a mirror's, and what is taken for none whatever a listing holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stopctl.mirror import keys
from stopctl.store.manifest import directory_name

NUMBERS = st.integers(1, 10**18 - 1)
NAMES = st.builds(
    directory_name,
    st.integers(0, 10**6),
    st.integers(0, 10**10),
    NUMBERS,
    st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
)
TAGS = st.builds(keys.new_tag, NUMBERS, st.integers(0, 2**32 - 1))
HOSTILE = st.text("./\\ab0-\n\x00٣", max_size=12)


@given(NAMES, TAGS, NUMBERS, st.integers(0, 10**8 - 1), st.integers(0, 10**17))
def test_every_key_is_read_as_what_it_was_made_of(
    name: str, tag: str, number: int, sequence: int, start: int
):
    commit = keys.Commit(name, tag)
    assert keys.commits([commit.key]) == [commit]
    assert keys.entry(commit.entry) == commit
    assert commit.number == int(tag.split("-")[0])
    for key, at in ((keys.data(name, tag, "state.json"), name), (keys.frozen("ab" * 32, tag), "ab" * 32)):
        assert list(keys.stored([key])) == [keys.Stored(key, at, tag)]
    assert list(keys.stored([keys.data(name, tag, "other.json")])) == []
    run, segment = keys.Run(number, sequence), keys.Segment(number, sequence, start)
    assert keys.runs([run.key]) == [run]
    assert keys.segments([segment.key]) == [segment]
    there = [keys.writer(number), keys.writer(number, "seen"), keys.writer(number, "closed")]
    assert keys.writers(there) == ({number}, {number}, {number})
    assert keys.writers(there).top == number


@given(NAMES, TAGS, HOSTILE)
def test_nothing_else_is_a_key(name: str, tag: str, junk: str):
    """No part of one leads out of its place, and nothing before or behind one is passed over."""
    for parts in ((junk, tag), (name, junk), (name + junk, tag + junk), (junk + name, tag)):
        for commit in keys.commits([f"commits/{'/'.join(parts)}.json"]):
            assert "/" not in commit.name + commit.tag
            assert commit.key == f"commits/{'/'.join(parts)}.json"
        for stored in keys.stored([f"data/{'/'.join(parts)}/state.json", f"frozen/{'/'.join(parts)}"]):
            assert stored.key == f"data/{'/'.join(parts)}/state.json"
            assert ".." not in stored.key.split("/")
    assert keys.writers([f"writers/{junk}.json"]).top == 0
    assert keys.runs([f"runs/{junk}.json"]) == []
    assert keys.segments([f"journal/{junk}.jsonl"]) == []


def test_later_attempts_of_one_writer_come_after_earlier_ones():
    tags = [keys.new_tag(3, attempt) for attempt in (1, 2, 15, 16, 1000)]
    assert tags == sorted(tags)
    name = directory_name(1, 1, 1, None)
    assert max((keys.Commit(name, tag) for tag in tags), key=lambda commit: commit.place).tag == tags[-1]
