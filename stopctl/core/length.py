"""A length of training in exactly one unit, as After, Every and KeepEvery take it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cached_property

from stopctl.core.errors import SettingError
from stopctl.core.values import count, setting

_SECONDS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}
UNITS = ("epochs", "steps", *_SECONDS)


@dataclass(frozen=True, repr=False)
class Length:
    """Exactly one of epochs, steps (whole numbers >= 1), seconds, minutes, hours (numbers > 0)."""

    _: KW_ONLY
    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None
    minutes: float | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        given = {unit: getattr(self, unit) for unit in UNITS}
        given = {unit: n for unit, n in given.items() if n is not None}
        name = type(self).__name__
        if len(given) != 1:
            told = ", ".join(f"{unit}={n!r}" for unit, n in given.items())
            raise SettingError(
                f"{name}({told}): give exactly one unit, such as {name}(epochs=10) or {name}(hours=2)"
            )
        ((unit, n),) = given.items()
        where = f"{name}({unit}=...): {unit}"
        if unit in _SECONDS:
            setting(n, where, positive=True)
        else:
            count(n, where, least=1)

    @cached_property
    def given(self) -> tuple[str, float]:
        """The unit in the singular and the number, as written."""
        unit = next(u for u in UNITS if getattr(self, u) is not None)
        return unit[:-1], getattr(self, unit)

    @cached_property
    def counter(self) -> tuple[str, float]:
        """The counter of Progress that measures it, and the length in that counter's unit."""
        return measure(*self.given)


def measure(unit: str, n: float) -> tuple[str, float]:
    """The counter of Progress that measures ``n`` of a unit in the singular, and n in that counter's unit.

    >>> measure("hour", 2)
    ('seconds', 7200.0)
    """
    counter = unit if unit in ("epoch", "step") else "seconds"
    return counter, n * _SECONDS.get(unit + "s", 1)
