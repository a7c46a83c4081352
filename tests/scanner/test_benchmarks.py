"""A task of the engine becomes stimuli that are asked what the engine asks."""

import json
from pathlib import Path

import datasets
import lm_eval
import numpy as np
import pandas as pd
import pytest
import yaml
from lm_eval.tasks import TaskManager

from analyses.asking import Form, questions_of
from scanner import Live, Recording
from scanner.benchmarks import questions_in
from scanner.harness import TASKS, Asked, HarnessError, _engine, likelihoods, silently
from stimuli import load
from tests.conftest import run

DOCS = [
    {"q": "We saw the", "o": ["cat", "word", "bread"], "a": 0},
    {"q": "The word was", "o": ["today", "a hammer", "bread"], "a": 2},
    {"q": "a hammer is a", "o": ["cat", "word", "saw"], "a": 1},
    {"q": "today we", "o": ["is", "was", "saw"], "a": 2},
]
TASK = {
    "task": "toys", "dataset_path": "json", "output_type": "multiple_choice", "test_split": "train",
    "description": "Say what is right.\n\n", "doc_to_text": "{{q}}", "doc_to_choice": "o",
    "doc_to_target": "a", "target_delimiter": " ",
    "metric_list": [{"metric": one, "aggregation": "mean", "higher_is_better": True}
                    for one in ("acc", "acc_norm")],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Task files of one's own, with their data beside them; nothing of the hub or its cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", _own_tasks)
    data = tmp_path / "toys.json"
    data.write_text("\n".join(json.dumps(one) for one in DOCS))
    free = {**TASK, "task": "words", "output_type": "generate_until", "doc_to_target": "q",
            "generation_kwargs": {"until": []}}  # fmt: skip
    free.pop("metric_list"), free.pop("doc_to_choice")
    for task in (TASK, free):
        task = {**task, "dataset_kwargs": {"data_files": str(data)}}
        (tmp_path / f"{task['task']}.yaml").write_text(yaml.safe_dump(task))
    rolling = {**free, "task": "rolling", "output_type": "loglikelihood_rolling"}
    rolling["dataset_kwargs"] = {"data_files": str(data)}
    (tmp_path / "rolling.yaml").write_text(yaml.safe_dump(rolling))
    return tmp_path


def _own_tasks(include_path: list[str]) -> TaskManager:
    """Without the engine's own fourteen thousand, which take a quarter of a minute to read."""
    return TaskManager(include_path=include_path[-1], include_defaults=False)


def test_what_a_task_asks_is_what_the_engine_asks(folder, proved) -> None:
    model = proved("llama")
    path = folder / "toys.csv"
    questions_in("toys", include=folder).to_csv(path, index=False)
    recording = Recording(model.source, load(str(path)), ("resid_post",), "target", "float32")
    live = Live(model, recording)
    questions, form = questions_of(live, fewest=2), Form("plain", None)
    found = likelihoods(model, [Asked(one.text, form.spoken(one, [0, 1, 2])) for one in questions])
    with silently():
        task = _own_tasks([str(folder)]).load(["toys"])
        told = lm_eval.evaluator.evaluate(_engine(model, special=True), task, bootstrap_iters=0)
    assert told is not None
    samples = sorted(told["samples"]["toys"], key=lambda one: one["doc_id"])
    for values, sample in zip(found, samples, strict=True):
        of_engine = [value for ((value, _),) in sample["resps"]]
        np.testing.assert_allclose(np.sort(values), np.sort(of_engine), atol=1e-5)
        assert values[0] == pytest.approx(of_engine[sample["target"]], abs=1e-5)
    right = np.mean([values.argmax() == 0 for values in found])
    assert right == told["results"]["toys"]["acc,none"]
    assert [one.text for one in questions] == [f"{TASK['description']}{one['q']}" for one in DOCS]


def test_a_table_of_a_task_is_one_of_stimuli(folder) -> None:
    table = questions_in("toys", include=folder)
    assert table["answer"].tolist() == [one["o"][one["a"]] for one in DOCS]
    assert table["wrong_2"].tolist() == ["bread", "a hammer", "saw", "was"]
    assert table["item"].tolist() == [f"toys {number}" for number in range(4)]
    spans = zip(table["text"], table["target_start"], table["target_end"], strict=True)
    words = [text[start:end] for text, start, end in spans]
    assert words == ["the", "was", "a", "we"]
    free = questions_in("words", include=folder)
    assert free["answer"].tolist() == [one["q"] for one in DOCS]
    assert "wrong_1" not in free


def test_what_is_no_task_of_questions_is_named(folder) -> None:
    with pytest.raises(HarnessError, match="no task 'none'"):
        questions_in("none", include=folder)
    with pytest.raises(HarnessError, match="'rolling' asks for neither options nor a text"):
        questions_in("rolling", include=folder)
    with pytest.raises(HarnessError, match="'words 0' has fewer options than others"):
        questions_in("toys", "words", include=folder)


def test_data_that_cannot_be_had_are_named(folder) -> None:
    (folder / "toys.json").unlink()
    with pytest.raises(HarnessError, match="the data of toys cannot be had"):
        questions_in("toys", include=folder)


def test_groups_name_tasks_that_the_engine_has() -> None:
    files = [yaml.safe_load(one.read_text()) for one in TASKS.glob("tanwar2025_*.yaml")]
    named = {name for one in files for name in one["task"]}
    assert len(files) == 3 and len(named) == 18
    home = Path(lm_eval.__file__).parent / "tasks"
    folders = ("careqa", "mmlu/default", "medmcqa", "medqa", "mediqa_qa2019", "medtext", "olaph",
               "agieval", "mathqa")  # fmt: skip
    with silently():
        known = TaskManager(
            include_path=[str(home / one) for one in folders], include_defaults=False
        )
    assert named <= set(known.all_tasks)


def test_the_columns_are_those_that_stimuli_have(folder) -> None:
    path = folder / "toys.csv"
    questions_in("toys", include=folder).to_csv(path, index=False)
    assert {"text", "item", "frame", "category", "answer"} <= set(load(str(path)).table)
    assert isinstance(load(str(path)).table, pd.DataFrame)


def test_a_command_writes_the_table(folder) -> None:
    run("questions", "toys", "--include", folder, "--out", folder / "written.csv")
    assert load(str(folder / "written.csv")).table["answer"][0] == "cat"
    run("questions", "none", "--include", folder, "--out", folder / "not.csv", code=1)
