"""Questions of benchmarks as stimuli: what a task of lm-evaluation-harness asks, row by row.

So a benchmark is a table like any other: its questions are items, scans record what a model
computes while it reads them, and `choices` and `replies` ask them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from scanner.harness import TASKS, HarnessError, missing, silently

# The one sentence that questions of a task stand in.
FRAME = "as published"


def questions_in(*names: str, include: Path | None = None) -> pd.DataFrame:
    """What tasks ask.

    Parameters
    ----------
    *names : str
        Of tasks, or groups of them, of lm-evaluation-harness or of `tasks/`.
    include : pathlib.Path, optional
        A folder with task files of one's own.

    Returns
    -------
    pandas.DataFrame
        ``text``: the question to where the answer begins; ``target_start`` and ``target_end``: its
        last word; ``item``: the task and a number; ``frame``; ``category``: the task; ``answer``;
        ``wrong_1`` and on, where there are options.

    Raises
    ------
    HarnessError
        If the engine is not installed, a task is unknown, its data cannot be had, it asks for
        neither options nor a text, or tasks differ in how many options they have.
    """
    why = missing()
    if why:
        raise HarnessError(why)
    rows = [row for task in _tasks(names, include) for row in _rows(task)]
    table = pd.DataFrame(rows)
    uneven = table.columns[table.isna().any()]
    if len(uneven):
        row = int(table[uneven[0]].isna().to_numpy().argmax())
        raise HarnessError(
            f"'{table['item'][row]}' has fewer options than others; ask for tasks that have as "
            "many one by one"
        )
    return table


def _tasks(names: tuple[str, ...], include: Path | None) -> list[Any]:
    from lm_eval.tasks import TaskManager

    with silently():
        manager = TaskManager(include_path=[str(one) for one in (TASKS, include) if one])
        known = set(manager.all_tasks)
        for name in names:
            if name not in known:
                raise HarnessError(f"lm-evaluation-harness has no task '{name}'")
        try:
            return list(manager.load(list(names))["tasks"].values())
        except (ConnectionError, OSError, ValueError) as error:
            raise HarnessError(
                f"the data of {', '.join(names)} cannot be had: {error}. They are fetched from the "
                "hub: is there a network, and is HF_HUB_OFFLINE not set?"
            ) from None


def _rows(task: Any) -> Iterator[dict[str, Any]]:
    name = str(task.config.task)
    if task.OUTPUT_TYPE not in ("multiple_choice", "generate_until") or task.multiple_input:
        raise HarnessError(f"'{name}' asks for neither options nor a text, so has no questions")
    for number, doc in enumerate(task.eval_docs):
        with silently():
            text = str(task.fewshot_context(doc, num_fewshot=0)).replace("\r", "").rstrip()
        yield {
            "text": text,
            "target_start": len(text) - len(text.split()[-1]),
            "target_end": len(text),
            "item": f"{name} {number}",
            "frame": FRAME,
            "category": name,
            **_answers(task, doc),
        }


def _answers(task: Any, doc: Any) -> dict[str, str]:
    """The right answer first, then the options that are wrong."""
    target = task.doc_to_target(doc)
    if task.OUTPUT_TYPE == "generate_until":
        told = target[0] if isinstance(target, list) else target
        return {"answer": str(told).replace("\r", "").strip()}
    options = [str(one).strip() for one in task.doc_to_choice(doc)]
    right = target if isinstance(target, int) else options.index(str(target).strip())
    wrong = [one for place, one in enumerate(options) if place != right]
    return {"answer": options[right]} | {
        f"wrong_{place}": one for place, one in enumerate(wrong, start=1)
    }
