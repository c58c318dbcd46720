"""Every error of stopctl is a StopctlError; each says what came, where we were and what to write instead."""

from __future__ import annotations


class StopctlError(Exception):
    """The root of all errors that stopctl raises on purpose."""


class SettingError(StopctlError, ValueError):
    """A rule or an argument that cannot be; raised where it is written."""


class MetricError(StopctlError, TypeError):
    """A reported value that is not one plain number."""


class ReportError(StopctlError, ValueError):
    """A report that lacks a metric some rule names, or whose counters go backwards."""


class OrderError(StopctlError, RuntimeError):
    """A call at a moment that does not accept it."""


class StateError(StopctlError, ValueError):
    """A saved state that cannot be loaded, or that belongs to another goal."""


class TeamError(StopctlError, RuntimeError):
    """The ranks of a distributed run cannot go on together: one has left, is late, or has decided otherwise.

    Raised on every rank that is still there.
    """
