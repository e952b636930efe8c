"""What a terminal shows of a search that runs: how far it is, how the front grows, its masks and where they lie."""

from __future__ import annotations

from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from memcontrol.report.tally import Tally
from memcontrol.report.text_plots import Layer, scatter, sparkline
from memcontrol.report.wording import (
    MOST_BLOCKS,
    counted_text,
    duration_text,
    mask_blocks,
    number_text,
    rate_text,
    short_names,
)
from memcontrol.score import direction

MOST_FRONT_ROWS = 10
WIDEST_BAR = 40
OTHER_COLUMNS = 46
"""Of the lines with bars, without the bar."""
OTHER_FRONT_COLUMNS = 36
"""Of the front's table, without the blocks."""
PLOT_WIDTHS, PLOT_HEIGHTS = (48, 64), (10, 15)
"""Least and most columns and lines of the picture of the front; on smaller terminals there is none."""


def live_display(tally: Tally, console: Console, *, over: bool = False) -> RenderableType:
    """Progress, the hypervolume's sparkline, the front's masks as blocks, and its picture where there is room for it.

    Args:
        console: whose width, height and characters are to do.
        over: whether the search has ended, and progress alone is to stay.
    """
    bars = _bars(tally, console, over=over)
    if over:
        return bars
    top: list[RenderableType] = [_header(tally), bars, _time(tally, console)]
    if not tally.standing.front:
        return Group(*top)
    free = console.height - bars.row_count - 3  # header, time, and the last line, which is the cursor's
    table, used = _front(tally, console, free)
    beside = console.width - console.measure(table).maximum - 3
    if beside >= PLOT_WIDTHS[0] and free >= PLOT_HEIGHTS[0]:
        picture = _picture(tally, console, beside, free)
        return Group(*top, _side_by_side(table, picture) if picture else table)
    below = console.width >= PLOT_WIDTHS[0] and free - used >= PLOT_HEIGHTS[0]
    picture = _picture(tally, console, console.width, free - used) if below else None
    return Group(*top, table, *([picture] if picture else []))


def _side_by_side(left: RenderableType, right: RenderableType) -> Table:
    grid = Table.grid(padding=(0, 3))
    grid.add_row(left, right)
    return grid


def _header(tally: Tally) -> Text:
    config = tally.config
    parts = f"{config.data.source} on {config.model}, space {config.space}, sampler {_sampler(tally)}"
    return Text(f"{parts}, seed {config.seed}", style="bold", no_wrap=True, overflow="ellipsis")


def _sampler(tally: Tally) -> str:
    search, bits = tally.config.search, [len(row["mask"]) for row in tally.rows if row["mask"]]
    if search.sampler != "auto" or not bits:
        return search.sampler
    from memcontrol.study.proposals import chosen_sampler

    objectives = len(tally.config.scoring.objectives)
    return chosen_sampler(search.sampler, budget=search.budget, groups=bits[0], objectives=objectives)


def _time(tally: Tally, console: Console) -> Text:
    left = tally.time_left() or f"estimating the time left{'...' if console.options.ascii_only else '…'}"
    confirming = " with confirmation" if tally.confirms and tally.config.confirm.seeds and tally.time_left() else ""
    return Text(f"{duration_text(tally.watched_s)} so far, {left}{confirming}", no_wrap=True, overflow="ellipsis")


def _bars(tally: Tally, console: Console, *, over: bool) -> Table:
    budget, plain = tally.config.search.budget, console.options.ascii_only
    width = max(4, min(WIDEST_BAR, console.width - OTHER_COLUMNS))
    grid = Table.grid(padding=(0, 1))
    for _ in range(2):
        grid.add_column(no_wrap=True)
    grid.add_column(width=width, no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    failed = f"{len(tally.failed)} failed" if tally.failed else ""
    bar = ProgressBar(total=budget, completed=len(tally.done), complete_style="cyan", finished_style="cyan")
    grid.add_row("trials", f"{len(tally.done)}/{budget}", bar, failed)
    grid.add_row("references", f"{len(tally.references)}/{tally.reference_count}", "", "")
    standing = tally.standing
    if standing.volumes:
        blocks = Text(sparkline(standing.volumes, width, ascii_only=plain), style="green")
        grew = "" if standing.grew is None else f"grew at trial {standing.grew}"
        grid.add_row("hypervolume", number_text(standing.volumes[-1]), blocks, grew)
    for number, now in sorted(() if over else tally.busy.items()):
        if now is None:
            grid.add_row(f"worker {number}", "", "", "")
        else:
            step = ProgressBar(
                total=max(1, now.total), completed=now.done, complete_style="blue", finished_style="blue"
            )
            grid.add_row(f"worker {number}", now.work, step, f"{now.phase} {now.done}/{now.total}")
    return grid


def _front(tally: Tally, console: Console, free: int) -> tuple[Table, int]:
    """The front's masks in at most so many lines, and how many those are."""
    objectives, front = tally.config.scoring.objectives, tally.standing.front
    most = min(MOST_FRONT_ROWS, max(1, free - 3))
    more = f"and {len(front) - most} more" if len(front) > most else None
    title = Text(f"front so far, {len(front)} of {counted_text(len(front) + len(tally.standing.others), 'trial')}")
    table = Table(title=title, title_justify="left", caption=more, caption_justify="left", box=None)
    short = short_names(objectives)
    for name in ("trial", "trains", "rate", *(short[name] for name in objectives)):
        justify: Literal["left", "right"] = "left" if name == "trains" else "right"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name in ("trial", "rate"))
    for row in front[:most]:
        rate = rate_text(float(row["learning_rate"]) if row["learning_rate"] else None)
        blocks = _lit(row["mask"], console)
        table.add_row(row["number"], blocks, rate, *(number_text(float(row[name])) for name in objectives))
    return table, 2 + min(most, len(front)) + (more is not None)


def _lit(bits: str, console: Console) -> Text:
    """A mask as blocks, those that are filled in colour; a count where there is no room for them."""
    if len(bits) > MOST_BLOCKS or console.width < OTHER_FRONT_COLUMNS + len(bits):
        return Text(f"{len(bits) - bits.count('0')} of {len(bits)}")
    text = Text(mask_blocks(bits, ascii_only=console.options.ascii_only), no_wrap=True)
    text.highlight_regex("[^□.]+", "green")
    text.highlight_regex("[□.]+", "dim")
    return text


def _picture(tally: Tally, console: Console, width: int, height: int) -> Text | None:
    """The front among the other trials and full fine-tuning's, in its first two objectives; None of one objective."""
    objectives, standing, plain = tally.config.scoring.objectives, tally.standing, console.options.ascii_only
    if len(objectives) < 2:
        return None
    layers = [
        Layer("others", standing.others, "." if plain else "·", "dim"),
        Layer("full fine-tuning", standing.full, "+", "magenta"),
        Layer("front", standing.points, "o" if plain else "●", "green"),
    ]
    across, up = (f"{name} ({direction(name)} is better)" for name in objectives[:2])
    width, height = min(width, PLOT_WIDTHS[1]), min(height, PLOT_HEIGHTS[1])
    return scatter(layers, (across, up), width=width, height=height, ascii_only=plain)
