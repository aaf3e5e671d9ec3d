"""Whom a text still names once homes are out of it."""

from __future__ import annotations

import pytest

from convexport.benchmarks.redaction import without_homes


@pytest.mark.parametrize(
    ("home", "text", "left"),
    [
        ("/", "a/b /root/x", "a/b /root/x"),
        ("/root", "in '/root', /root: /rooted/a /root/b", "in '~', ~: /rooted/a ~/b"),
        ("/root", "/home/ann/x:/Users/bob /media/ann/disk", "~/x:~ ~/disk"),
        ("/root", "/run/media/ann /usr/share/media/icons", "~ /usr/share/media/icons"),
        ("/srv/ann/", "/srv/ann/x /srv/ann.old", "~/x /srv/ann.old"),
    ],
)
def test_homes(monkeypatch: pytest.MonkeyPatch, home: str, text: str, left: str) -> None:
    monkeypatch.setenv("HOME", home)
    assert without_homes(text) == left
