"""A copy of a run in an object store, from which another machine goes on.

The standard library alone, but for what a URL needs.

Remote layout; every object is created once and never changed, and what a content names is matched before it
becomes a key::

    writers/<number>.json           a claim: who writes the mirror, by its number
    writers/<number>.seen.json      the commits that exist for it: from here on it may commit
    writers/<number>.closed.json    it has ended in order
    data/<name>/<tag>/<file>        the files of a checkpoint; a tag is <number>-<nonce>
    frozen/<sha256>/<tag>           unchanged arrays, which several checkpoints of one writer share
    commits/<name>/<tag>.json       the local manifest: the checkpoint exists
    runs/<number>-<sequence>.json   run.json and the pins; the newest counts
    journal/<number>-<sequence>-<start>.jsonl   bytes of the journal from <start> on; 0 begins it anew
"""

from __future__ import annotations

from stopctl.mirror.keys import Commit
from stopctl.mirror.look import MARK, Claim, Look
from stopctl.mirror.mirror import Mirror
from stopctl.mirror.objects import probe, remote
from stopctl.mirror.push import upload
from stopctl.mirror.remote import Remote
from stopctl.mirror.restore import Restored

__all__ = [
    "MARK",
    "Claim",
    "Commit",
    "Look",
    "Mirror",
    "Remote",
    "Restored",
    "probe",
    "remote",
    "upload",
]
