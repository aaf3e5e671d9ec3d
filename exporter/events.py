"""What a build tells while it runs. This one says nothing; the terminal has its own."""

from __future__ import annotations

from convexport.exporter.cache import StageResult


class Events:
    """Receives the progress of a build. Subclasses show it."""

    def begin(self, what: str) -> None:
        """A part of the build begins that has stages of its own."""

    def start(self, stage: str) -> None:
        """A stage begins."""

    def advance(self, done: int, total: int) -> None:
        """So many images of the running stage are done."""

    def detail(self, text: str) -> None:
        """What the running stage is doing."""

    def finish(self, result: StageResult) -> None:
        """A stage ended, or was found in the cache."""

    def note(self, text: str) -> None:
        """Something that the user must know."""
