"""Progress: a bar with the time left on a terminal, one quiet line a step elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

CONSOLE = Console(stderr=True, highlight=False)

Advance = Callable[..., None]


@contextmanager
def noted(what: str) -> Iterator[None]:
    """A step whose progress others show (pip, transformers): only its line at the end."""
    began = time.monotonic()
    yield
    CONSOLE.print(f"{what}: {time.monotonic() - began:.1f} s")


@contextmanager
def step(what: str, total: int, unit: str) -> Iterator[Advance]:
    """One step of the work.

    Parameters
    ----------
    what : str
        What is done, as in "recording smollm2".
    total : int
        How many units it has.
    unit : str
        What they are, in the plural.

    Yields
    ------
    callable
        ``advance(count)`` when some are done; ``advance(0, "detail")`` names what comes next.
    """
    began = time.monotonic()
    if not CONSOLE.is_terminal:
        yield lambda count=1, detail="": None
    else:
        with Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn("left", table_column=Column(no_wrap=True)),
            # What gives way on a narrow terminal.
            TextColumn("[dim]{task.fields[detail]}", table_column=Column(ratio=1, no_wrap=True)),
            console=CONSOLE,
            transient=True,
        ) as bars:
            task = bars.add_task(what, total=total, detail="")
            yield lambda count=1, detail="": bars.update(task, advance=count, detail=detail)
    CONSOLE.print(f"{what}: {total} {unit}, {time.monotonic() - began:.1f} s")
