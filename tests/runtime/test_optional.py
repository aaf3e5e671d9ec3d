"""A package that does not import is said with what pip calls it, or with the extra that has it."""

from __future__ import annotations

import sys

import pytest

from convexport.runtime.errors import MachineError
from convexport.runtime.optional import require


@pytest.mark.parametrize(
    ("module", "extra", "hint"),
    [
        ("PIL.Image", "", "pip install pillow"),
        ("jinja2", "", "pip install jinja2"),
        ("torch.nn", "export", "pip install 'convexport[export]'"),
    ],
)
def test_the_hint_names_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, hint: str
) -> None:
    monkeypatch.setitem(sys.modules, module.split(".")[0], None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MachineError) as error:
        require(module, extra=extra, purpose="a test")
    assert error.value.code == "E0401" and error.value.hint == hint
