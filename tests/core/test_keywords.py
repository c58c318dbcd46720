"""Keywords that something of ours does not have, as a call by another library's name meets them."""

from __future__ import annotations

import pytest

from stopctl import SettingError
from stopctl.core.keywords import refuse_unknown


@pytest.mark.parametrize(
    ("where", "given", "text"),
    [
        ("Run", {"verbose"}, "Run has no verbose=: write logging.getLogger"),
        ("Run", {"b", "a"}, "Run has no argument 'a'"),
        (
            "Run",
            {"compress"},
            "Run has no compress= any more: leave it out (trained weights hardly get smaller",
        ),
        ("EarlyStopper", {"compress"}, "EarlyStopper has no argument 'compress'"),
    ],
)
def test_the_first_unknown_keyword_is_named_with_what_to_write(where, given, text):
    with pytest.raises(SettingError) as caught:
        refuse_unknown(where, given)
    assert str(caught.value).startswith(text)


def test_nothing_unknown_is_refused_nothing():
    refuse_unknown("Run", ())
