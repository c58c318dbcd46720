"""The protocol of mirrors with one step taken out, each of which must be noticed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from support.mirrors.refusals import refused
from support.mirrors.rot import ROT
from support.mirrors.schedules import play, remembered
from support.mirrors.stories import beside_a_writer, break_off
from support.schedules_mutants import Mutant as Change

SCHEDULES = 1_500
"""Of those that the tests play, the first so many."""


def schedules(scratch: Path) -> None:
    with remembered():
        for seed in range(SCHEDULES):
            play(scratch, seed)


def story(name: str, *kinds: str) -> Callable[[Path], object]:
    return partial(break_off, story=name, kinds=kinds)


def refusal(name: str) -> Callable[[Path], object]:
    return partial(refused, name=name)


class Mutant(NamedTuple):
    """`function` (``module:qualified.name`` below stopctl.mirror) with `new` for `old`; `by`: what notices it."""

    function: str
    old: str
    new: str
    by: Callable[[Path], object]

    @property
    def change(self) -> Change:
        return Change(f"mirror.{self.function}", self.old, self.new)


CHECK = "self._check()"
MUTANTS: dict[str, Mutant] = {
    # opening
    "a claim over another's": Mutant("document:create", "remote.read(key, len(data)) == data", "True", schedules),
    "a claim whose answer was lost is another's": Mutant(
        "document:create", "remote.read(key, len(data)) == data", "False", story("first save", "again")
    ),
    "a claim that failed is forgotten": Mutant("mirror:Mirror._take", "return top", "pass", story("first save", "lost")),
    "a claim on what was seen long ago": Mutant("mirror:Mirror._take", "top != before", "False", refusal("one_claim_wins")),
    "a number that was taken": Mutant("mirror:Mirror._take", "max(top + 1, writer)", "max(top, writer)", refusal("one_claim_wins")),
    "a claim without a commit does not count": Mutant(
        "keys:Writers.top", "self.claims | self.seen | self.closed", "self.seen", story("first save", "after")
    ),
    "the claim is noted after it was made": Mutant(
        "mirror:Mirror._take", "self._note(directory, look)", "pass", refusal("a_claim_before_run_json_knows")
    ),
    "overtaken while it claims": Mutant(
        "mirror:Mirror.claim", "there.top > number", "False", refusal("overtaken_while_claiming")
    ),
    "the commits are looked at before the claim": Mutant(
        "mirror:Mirror.claim",
        "number = self._take(directory, look, writer)",
        "early = looks.visible(self._remote, looks.writers(self._remote).seen, "
        "looks.seen_by(self._remote, looks.writers(self._remote).seen).entries)\n"
        "number = self._take(directory, look, writer)\n"
        "document.create(self._remote, keys.writer(number, 'seen'), document.encode({'nonce': self._nonce, "
        "'seen': sorted(commit.entry for commit in early[0]), 'once': True}))\n"
        "self._seen = frozenset(commit.entry for commit in early[0])\n"
        "self.number, self._directory = number, directory\n"
        "self._segments = Segments(self._remote, self._files, directory / JOURNAL, number)\n"
        "return number",
        schedules,
    ),
    "that there were commits is forgotten": Mutant(
        "mirror:Mirror.claim", "counted.once or bool(exist)", "bool(exist)", refusal("commits_that_are_all_gone")
    ),
    "what was seen is told of again": Mutant("mirror:Mirror.claim", "number not in there.seen", "True", refusal("a_claim_that_was_told_of_already")),
    "what is deleted meanwhile is damaged": Mutant(
        "restore:restore", "looks.take(remote).commits != look.commits", "False", beside_a_writer
    ),
    "any directory is up to date": Mutant("look:Look.is_followed_by", "self.newest.nonce in mark", "True", refusal("a_claim_before_run_json_knows")),
    # committing
    "no look at the claims before the commit": Mutant(
        "mirror:Mirror.push", f"            {CHECK}", "            pass", story("two machines")
    ),
    "no look at the claims after the commit": Mutant(
        "mirror:Mirror.push",
        "document.create(self._remote, commit.key, document.encode(body))",
        "document.create(self._remote, commit.key, document.encode(body))\nreturn commit",
        schedules,
    ),
    "the commit before the files": Mutant(
        "mirror:Mirror._upload", "put(remote, files, shared or keys.data(name, tag, file), checkpoint / file)",
        "document.create(remote, commit.key, document.encode({'manifest': local.manifest.decode(), 'frozen': tag if FROZEN in local.facts else None}))\n"
        "put(remote, files, shared or keys.data(name, tag, file), checkpoint / file)",
        story("first save", "before"),
    ),
    "a commit without one of its files": Mutant("mirror:Mirror._upload", "file in elsewhere", "file in elsewhere or file == 'state.json'", story("first save")),
    "a file that is there is anybody's": Mutant(
        "push:put", "file_fact(files, back) != file_fact(files, path)", "False", refusal("what_was_read_back_is_compared")
    ),
    "what is damaged here is mirrored": Mutant("mirror:Mirror._upload", "check(files, checkpoint / file, fact)", "pass", refusal("a_local_checkpoint_that_is_damaged")),
    "links are uploaded": Mutant("push:put", "files.size(path)", "0", refusal("only_regular_files_are_uploaded")),
    "nobody looks for other ranks' parts": Mutant("mirror:Mirror._upload", "if missing:", "if False:", refusal("what_another_rank_has_not_uploaded")),
    "run.json comes when it comes": Mutant("mirror:Mirror.push", "self.describe()", "pass", story("first save")),
    "frozen arrays are uploaded each time": Mutant("mirror:Mirror._upload", "file == FROZEN and fact.sha256 in self._frozen", "False", refusal("frozen_arrays_are_uploaded_once")),
    # what exists
    "every commit exists": Mutant("look:visible", "or commit.entry in counted", "or True", schedules),
    "commits of earlier writers do not": Mutant("look:visible", "or commit.entry in counted", "", story("restores")),
    "the oldest claim's list counts": Mutant("look:seen_by", "max(seen)", "min(seen)", schedules),
    "of one name the oldest commit": Mutant("look:each_once", "reversed({commit.name: commit for commit in commits}.values())", "{c.name: c for c in reversed(list(commits))}.values()", refusal("of_one_name_the_newest")),
    # pruning
    "the files before the commit": Mutant(
        "mirror:Mirror.prune", "self._remote.delete([commit.key for commit in gone if commit.number <= number])",
        "self._sweep({commit for commit in exist if commit not in gone})\n"
        "self._remote.delete([commit.key for commit in gone if commit.number <= number])",
        story("tenth save", "before"),
    ),
    "the newest goes": Mutant("mirror:Mirror._doomed", "for commit in once[1:] if", "for commit in once if", refusal("the_newest_stays")),
    "the best goes before a better one is there": Mutant("mirror:Mirror._doomed", "*want(list(infos.values())),", "", refusal("the_best_stays_until_a_better_one_is_there")),
    "pinned ones go": Mutant("mirror:Mirror._doomed", "if info.pinned", "if False", refusal("a_pinned_one_stays")),
    "one that cannot be read goes": Mutant("mirror:Mirror._doomed", "commit in infos and commit.name", "commit.name", refusal("one_that_cannot_be_read_stays")),
    "what it shares goes": Mutant("mirror:Mirror._sweep", "return", "shared = set()", refusal("one_that_cannot_be_read_stays")),
    "a zombie's commits stay": Mutant("mirror:Mirror.prune", "{*fenced, *exist}", "{*exist}", schedules),
    "a fenced writer prunes": Mutant("mirror:Mirror.prune", CHECK, "pass", refusal("a_fenced_writer_prunes_nothing")),
    "a later writer's commits go": Mutant("mirror:Mirror.prune", "if commit.number <= number", "", refusal("a_later_writers_commits_stay")),
    "a later writer's files go": Mutant("mirror:Mirror._sweep", "each.number <= self.number and", "", schedules),
    "what is being uploaded goes": Mutant("mirror:Mirror._sweep", "| self._open", "", story("together")),
    "the files of a late commit go": Mutant("mirror:Mirror.tag", "self._open.add(tag)", "pass", refusal("a_commit_that_comes_late_has_its_files")),
    "shared arrays go": Mutant("mirror:Mirror._sweep", "and (each.key not in shared)", "", story("tenth save")),
    "arrays that went are shared": Mutant("mirror:Mirror._sweep", "del self._frozen[each.at]", "pass", refusal("frozen_arrays_that_were_swept_are_uploaded_again")),
    "nothing is swept": Mutant("mirror:Mirror.prune", "self._sweep(alive)", "pass", story("first save", "before")),
    # restoring
    "no SHA-256": Mutant("push:check", "file_fact(files, path, chunked=fact.chunked) != fact", "False", ROT["other rot"]),
    "no SHA-256 of small objects": Mutant("document:decode", "encode(said) != data", "False", ROT["flips"]),
    "a commit under any name": Mutant("restore:read_commit", "manifest.parse_as(commit.name, data, folder)", "manifest.parse(data, folder)", refusal("a_commit_in_anothers_place")),
    "nothing older after damage": Mutant("restore:_Filling.newest", "self._look.commits", "self._look.commits[:1]", ROT["other rot"]),
    "a fresh start after damage": Mutant("restore:restore", "if not whole:", "if False:", ROT["other rot"]),
    "a fresh start where commits are gone": Mutant(
        "restore:restore", "begun or look.once or _once_mirrored(remote)", "False", refusal("commits_that_are_all_gone")
    ),
    "half a restore is taken for a run": Mutant("restore:_clear", "RESTORING: True", "'x': True", story("restores", "before")),
    "what half a restore left stays": Mutant("restore:restore", "withdraw(files, directory / CHECKPOINTS / entry.name)", "pass", refusal("a_restore_that_is_broken_off")),
    "the best stays there": Mutant("restore:_Filling.others", "| set(want(good))", "", story("restores")),
    "pinned ones stay there": Mutant("restore:_Filling.others", "if info.pinned", "if False", story("restores")),
    "a directory that lies behind goes on": Mutant("restore:_catch_up", "filling.newest()", "pass", refusal("a_directory_that_lies_behind")),
    # the journal
    "one key for two contents": Mutant("journal:Segments.mirror", "self._sequence += 1", "pass", refusal("a_journal_whose_answers_are_lost")),
    "lines that came twice": Mutant("journal:read_back", "after.start <= segment.start", "False", refusal("a_journal_whose_answers_are_lost")),
    "older segments stay": Mutant("journal:Segments.mirror", "self._remote.delete(", "list(", story("first save", "before")),
    "an older writer's lines": Mutant("journal:read_back", "max(", "min(", refusal("the_newest_writers_journal")),
}  # fmt: skip
