"""What the documents tell a user to type exists."""

import re
import shlex
from pathlib import Path

import click
import pytest

import convexport
from convexport.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/peers/README.md",
    "docs/cpp.md",
    "docs/design.md",
    "docs/figures.md",
    "docs/literature.md",
    "docs/measuring.md",
    "docs/zoo.md",
)


def blocks(text: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)


def commands() -> list[str]:
    found = []
    for document in DOCUMENTS:
        for block in blocks((ROOT / document).read_text()):
            lines = (line.split("#")[0].removeprefix("$ ").strip() for line in block.splitlines())
            found += [line for line in lines if line.startswith("convexport ")]
    return found


@pytest.mark.parametrize("line", commands())
def test_commands_and_options_exist(line: str) -> None:
    _, name, *words = shlex.split(line)
    assert name in COMMANDS
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {option for param in command.params for option in param.opts}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= known | {"-h", "--help"}


def test_the_readme_shows_commands() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_inside_the_repository_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / document).read_text()):
        if "://" not in target:
            assert ((ROOT / document).parent / target).exists(), target


def test_modules_that_the_documents_run_exist() -> None:
    for document in DOCUMENTS:
        for module in re.findall(r"python -m (convexport\.[\w.]+)", (ROOT / document).read_text()):
            room, _, name = module.removeprefix("convexport.").partition(".")
            assert (ROOT / room / f"{name}.py").is_file(), module


def test_the_public_names_are_those_that_are_promised() -> None:
    assert convexport.__all__ == sorted(convexport.__all__)
    for name in convexport.__all__:
        assert getattr(convexport, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = convexport.nothing_such
