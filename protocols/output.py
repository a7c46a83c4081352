"""What commands print: tables for people, and JSON for machines."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from scanner.provenance import version

Json = Annotated[bool, Parameter(name="--json", help="Print JSON, for machines.", negative="")]


def print_json(command: str, found: Mapping[str, Any]) -> None:
    """Print what a command found as one JSON object; what is not a number is null.

    Parameters
    ----------
    command : str
        Its name, which the object begins with.
    found : mapping
    """
    told = {"command": f"scan {command}", "lmfmri": version("lmfmri"), **found}
    print(json.dumps(told, indent=2, allow_nan=False, ensure_ascii=False))


def print_columns(rows: Iterable[tuple[str, str]], *, width: int = 0) -> None:
    """Print names and what is said of them, indented.

    On a terminal what is long is wrapped beside its name; into a pipe each goes on one line.

    Parameters
    ----------
    rows : iterable of pairs of str
    width : int
        Of the names, at the least, so that several tables stand alike.
    """
    rows = list(rows)
    width = max(width, *(len(name) for name, _ in rows))
    console = Console()
    if not console.is_terminal:
        for name, what in rows:
            print(f"  {name:{width}}  {what}".rstrip())
        return
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column(min_width=width, no_wrap=True)
    table.add_column(overflow="fold")
    for name, what in rows:
        table.add_row(Text(name), Text(what))
    console.print(Padding.indent(table, 2))
