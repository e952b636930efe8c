"""A plan as people read it: what was asked for, what it needs, how long it takes, and what is missing."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memcontrol.planning.document import Need, Plan, Work
from memcontrol.report.wording import duration_text, number_text, size_text


def plan_lines(plan: Plan) -> RenderableType:
    """The plan as text and tables; problems stand last, where they are seen."""
    parts: list[RenderableType] = [Text(f"memcontrol {plan.command}: dry run", style="italic"), _facts(plan)]
    if plan.work:
        parts.append(_work_table(plan))
    if plan.needs:
        parts.append(_needs_table(plan.needs))
    if plan.assumptions:
        parts.append(Text("These are estimates. " + "; ".join(plan.assumptions) + ".", style="dim"))
    parts.append(Text(_verdict(plan), style="bold"))
    parts += [Text(f"- {problem}") for problem in plan.problems]
    return Group(*parts)


def _facts(plan: Plan) -> Table:
    table = Table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in plan.settings.items():
        table.add_row(name, Text(f"{value:,}" if isinstance(value, int) else str(value)))
    for number, note in enumerate(plan.data.get("notes", ())):
        table.add_row("" if number else "data", Text(note))
    if plan.model:
        parts = ", ".join(f"{name} {count:,}" for name, count in plan.model["numel"].items())
        side, latents = plan.model["resolution"], " x ".join(map(str, plan.model["latents"]))
        table.add_row("model", Text(f"{plan.model['id']}: {parts} parameters"))
        table.add_row("", Text(f"images of {side} x {side} pixels, latents of {latents}"))
    return table


def _work_table(plan: Plan) -> Table:
    rate = plan.machine.tflops * plan.machine.workers if plan.machine else None
    table = Table(box=SIMPLE_HEAD, show_footer=True, title="Time", title_justify="left")
    table.add_column("work", footer="all")
    table.add_column("trainings", justify="right")
    table.add_column("steps", justify="right")
    table.add_column("images", justify="right")
    table.add_column("TFLOP", justify="right", footer=number_text(sum(one.tflop for one in plan.work)))
    table.add_column("time", justify="right", footer="" if plan.seconds is None else duration_text(plan.seconds))
    for one in plan.work:
        table.add_row(*_work_cells(one), "" if rate is None else _time(one.duration(rate)))
    return table


def _time(seconds: float) -> str:
    return duration_text(seconds) if seconds >= 1 else "< 1 s"


def _work_cells(one: Work) -> list[str]:
    counts = [f"{count:,}" if count else "" for count in (one.trainings, one.steps, one.images)]
    return [one.what, *counts, number_text(one.tflop) if one.tflop else ""]


def _needs_table(needs: tuple[Need, ...]) -> Table:
    table = Table(box=SIMPLE_HEAD, title="Space", title_justify="left")
    table.add_column("where", no_wrap=True)
    table.add_column("needs", justify="right", no_wrap=True)
    table.add_column("free", justify="right", no_wrap=True)
    table.add_column("for", overflow="fold")
    for need in needs:
        parts = ", ".join(f"{what} {size_text(count)}" for what, count in need.parts.items() if count)
        table.add_row(need.where, size_text(need.bytes), size_text(need.free), Text(parts))
    return table


def _verdict(plan: Plan) -> str:
    if plan.ready:
        return "Nothing is missing: it could start. Nothing was written."
    count = len(plan.problems)
    return f"It could not start: {count} problem{'s' if count > 1 else ''}. Nothing was written."
