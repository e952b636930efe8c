"""What the doctor found, as tables for people."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memcontrol.installation import Diagnosis
from memcontrol.installation.folders import Folder
from memcontrol.report.wording import size_text

FOUND, MISSING = "found", "missing"


def diagnosis_lines(diagnosis: Diagnosis) -> RenderableType:
    """The diagnosis as tables; the verdict stands last, where it is seen."""
    verdict = [Text(_verdict(diagnosis), style="bold"), *(Text(f"- {line}") for line in diagnosis.problems[1:])]
    return Group(_machine(diagnosis), _packages(diagnosis), _encoders(diagnosis), _embedded(diagnosis), *verdict)


def _verdict(diagnosis: Diagnosis) -> str:
    if diagnosis.ready:
        return "The default search can run: memcontrol search --budget 50"
    return f"The default search cannot run: {diagnosis.problems[0]}"


def _machine(diagnosis: Diagnosis) -> Table:
    devices = diagnosis.devices
    table = Table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("Python", Text(f"{diagnosis.python} on {diagnosis.platform}"))
    table.add_row("releases", Text(", ".join(f"{name} {version}" for name, version in diagnosis.versions.items())))
    cores = f"{devices.cores} CPU core{'' if devices.cores == 1 else 's'} to use"
    threads = "1 thread a worker" if devices.threads is None else f"OMP_NUM_THREADS={devices.threads}"
    table.add_row("devices", Text(f"{cores}, {threads}; {devices.note}"))
    table.add_row("cache", Text(_folder(diagnosis.cache)))
    table.add_row("here", Text(_folder(diagnosis.here)))
    return table


def _folder(folder: Folder) -> str:
    held = "" if folder.bytes is None else f"{folder.files:,} files, {size_text(folder.bytes)}; "
    return f"{folder.path}: {held}{size_text(folder.free)} free{'' if folder.writable else '; CANNOT BE WRITTEN'}"


def _packages(diagnosis: Diagnosis) -> Table:
    table = _table("Optional packages", "package", "", "for", "to install it")
    for package in diagnosis.packages:
        get = "" if package.version else package.get
        table.add_row(package.name, package.version or MISSING, Text(package.purpose), Text(get))
    return table


def _encoders(diagnosis: Diagnosis) -> Table:
    table = _table("Encoders", "encoder", "", "weights", "terms")
    missing = {package.name for package in diagnosis.packages if package.version is None}
    for encoder in diagnosis.encoders:
        state = MISSING if encoder.place is None else FOUND
        needs = f"package {encoder.needs}; " if encoder.needs in missing else ""
        table.add_row(encoder.name, state, Text(needs + (encoder.get or encoder.place or "")), Text(encoder.terms))
    return table


def _embedded(diagnosis: Diagnosis) -> Table:
    table = _table("Embedded data and models", "name", "", "what it is", "terms")
    for source in diagnosis.embedded:
        state = FOUND if source.problem is None else MISSING
        what = f"{source.what}; with {source.comes_with}"
        table.add_row(source.name, state, Text(what if source.problem is None else source.problem), Text(source.terms))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number < 2, overflow="fold")
    return table
