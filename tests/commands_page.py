"""The commands of docs/commands.md; `python tests/commands_page.py` writes them anew."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import typer.main
from generated_part import GeneratedPart

from memcontrol.cli import app

PART = GeneratedPart(Path(__file__).parents[1] / "docs" / "commands.md", "tests/commands_page.py")


def commands() -> dict[str, Any]:
    """Every command of the program, in the order of `--help`."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def text() -> str:
    """Every command: what it does, its example, arguments and options."""
    return "\n\n".join(section(name, command) for name, command in commands().items())


def section(name: str, command: Any) -> str:
    """One command."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    parts = [f"## {name}", *map(paragraph, inspect.cleandoc(command.help).split("\n\n"))]
    if arguments:
        parts.append(
            table(["argument", "what it is"], [[f"`{one.name.upper()}`", cell(one.help)] for one in arguments])
        )
    panels = dict.fromkeys(panel(one) for one in options)
    for title in panels:
        rows = [[names(one), default(one), cell(one.help)] for one in options if panel(one) == title]
        parts += [f"**{title}**"] if title else []
        parts.append(table(["option", "unless given", "what it is"], rows))
    return "\n\n".join(parts)


def paragraph(said: str) -> str:
    """A paragraph of a command's help; an example becomes a block of code."""
    words = " ".join(said.split())
    return f"    {words.removeprefix('Example: ')}" if words.startswith("Example: ") else words


def panel(option: Any) -> str:
    """Under which heading the help shows an option."""
    return option.rich_help_panel or ""


def names(option: Any) -> str:
    """What an option is called."""
    return ", ".join(f"`{one}`" for one in [*option.opts, *option.secondary_opts])


def default(option: Any) -> str:
    """What holds where an option is not given."""
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return f"`{option.show_default}`" if " " not in option.show_default else option.show_default
    return "" if option.default in (None, False) else f"`{option.default}`"


def cell(words: str) -> str:
    """Text in a table."""
    return words.replace("|", r"\|")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    PART.write(text())
