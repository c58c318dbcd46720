"""A hook of mkdocs: on the site the English beginning is index.md, in the repository the README."""

from __future__ import annotations

from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to the README lead to the site's first page."""
    return markdown.replace("](../README.md)", "](index.md)")
