"""A text that would steer a terminal or a page, and how to tell that it did not."""

from __future__ import annotations

HOSTILE = "\x1b[31mred\x07[bold]{{7*7}}[/x] %n <script>\x9b2J"


def quiet(text: str) -> bool:
    """Nothing in it but what is printed, and ends of lines."""
    return all(char.isprintable() or char == "\n" for char in text)
