"""A whole study of questions, on two toy models: asked, judged, held against each other."""

import json
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from protocols.report.published import Measured, beside
from protocols.schema import load_study
from tests.conftest import run

ITEMS = {
    "animals": ("cat", "beaver", "horse", "otter", "mole", "deer"),
    "tools": ("hammer", "saw", "chisel", "wrench", "drill", "file"),
}
ANSWERS = ("today", "a word", "the bread")
PROTOCOL = """\
study: toy
subjects: [{one}, {other}]
stimuli: questions.csv
scan: {{sites: [resid_post], tokens: last, twins: 1}}
analyses:
  know: {{choices: {{random: 3}}}}
  without: {{choices: {{left_out: mlp, layers: [0, 2], random: 1}}}}
  say: {{replies: {{prompt: letters, tokens: 2, random: 1}}}}
  standing: {{standings: {{site: know}}}}
  wording: {{standings: {{site: say, score: overlap}}}}
hypotheses:
  - id: knows
    subject: {one}
    claim: The right option is likelier than by luck.
    rationale: A model that was never trained should not know it.
    published: {{found: 69.45 % of ten benchmarks, by: "Tanwar et al. 2025, table 7"}}
    measure: know.accuracy
    at: {{layer: 0}}
    expect: greater
    than: chance
    smallest_effect: 0.2
    alpha: 0.05
    controls:
      untrained_twin: {{margin: 0.1}}
      random_target: {{margin: 0.1}}
      split_half: {{margin: 0.0, splits: 3}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_source) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("questions")
    # Each of three answers is right as often, so that one that is always given is right by luck.
    rows = [
        (f"{frame} {item}\nAnswer:", item, frame, kind, *np.roll(ANSWERS, number))
        for frame in ("This was the", "There was a")
        for kind, items in ITEMS.items()
        for number, item in enumerate(items)
    ]
    columns = ["text", "item", "frame", "category", "answer", "wrong_1", "wrong_2"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "questions.csv", index=False)
    models = [
        tiny_source("llama", seed=seed, max_position_embeddings=128).folder for seed in (100, 101)
    ]
    protocol = PROTOCOL.format(one=models[0], other=models[1])
    (folder / "protocol.yaml").write_text(protocol)
    run(folder / "protocol.yaml", "--results", folder / "results")
    return folder / "results", [model.name for model in models]


def test_an_untrained_model_is_not_found_to_know(finished) -> None:
    results, (one, _) = finished
    (verdict,) = json.loads((results / "toy/verdicts.json").read_text())["verdicts"]
    assert verdict["status"] in ("null", "inconclusive", "rejected")
    assert len(verdict["checks"]) == 3
    measured = xr.load_dataset(results / f"toy/measures/know--{one}.nc")
    assert float(measured["accuracy"][0]) == pytest.approx(verdict["estimate"])


def test_layers_that_are_left_out_stand_beside_each_other(finished) -> None:
    results, (one, _) = finished
    measured = xr.load_dataset(results / f"toy/measures/without--{one}.nc")
    assert measured["layer"].values.tolist() == [0, 2]
    assert measured["answered_of"].dims == ("layer", "arm")


def test_subjects_are_held_against_each_other_in_what_each_was_found_to_answer(finished) -> None:
    results, models = finished
    for standing, asked, variable in (
        ("standing", "know", "accuracy"), ("wording", "say", "overlap")
    ):  # fmt: skip
        found = xr.load_dataset(results / f"toy/measures/{standing}--{'--'.join(models)}.nc")
        alone = [xr.load_dataset(results / f"toy/measures/{asked}--{one}.nc") for one in models]
        np.testing.assert_allclose(
            found["standing"], [float(one[variable][0]) for one in alone], rtol=1e-6
        )


def test_the_report_tells_how_they_were_asked_and_what_was_published(finished) -> None:
    results, _ = finished
    page = unescape((results / "toy/report.html").read_text())
    for told in (
        "by lm-evaluation-harness (Gao et al. 2024) around the model in the scanner",
        "McNemar's exact test", "normalised score", "Beside what is published", ">69.45<",
        "Replies that keep to three instructions, percent",
    ):  # fmt: skip
        assert told in page


def test_rows_of_the_study_stand_beside_what_is_published(finished) -> None:
    results, models = finished
    study = load_study(results.parent / "protocol.yaml")
    found = [
        Measured(name, kind, [one], xr.load_dataset(results / f"toy/measures/{name}--{one}.nc"))
        for name, kind in (("know", "choices"), ("say", "replies"))
        for one in models
    ]
    tables = {one.title: one for one in beside(study, found)}
    # Behind letters nothing is answered in words of its own.
    assert list(tables) == [
        "Right answers, percent", "Replies that keep to three instructions, percent",
        "What is said",
    ]  # fmt: skip
    right = tables["Right answers, percent"]
    shares = [100 * float(one.measures[name][0]) for one, name in zip(
        found, ("answered", "answered", "right", "right"), strict=True
    )]  # fmt: skip
    # Two analyses are told apart by their names.
    assert [name for name, _ in right.ours] == [
        f"{asked}: {one}" for asked in ("know", "say") for one in models
    ]
    assert [cells[0].partition(" ")[0] for _, cells in right.ours] == [f"{x:.1f}" for x in shares]
    assert {len(cells) for _, cells in (*right.theirs, *right.ours)} == {len(right.header)}
    # The first question of each category, with what is right of it.
    assert tables["What is said"].header == ["beaver (the bread)", "chisel (a word)"]
    # Of one analysis the subject is enough.
    assert [name for name, _ in tables["What is said"].ours] == models


def test_nothing_published_is_shown_where_nothing_is_cited(finished) -> None:
    results, models = finished
    study = load_study(results.parent / "protocol.yaml")
    (claim,) = study.protocol.hypotheses
    silent = study.protocol.model_copy(
        update={"hypotheses": [claim.model_copy(update={"published": None})]}
    )
    path = results / f"toy/measures/know--{models[0]}.nc"
    found = [Measured("know", "choices", models[:1], xr.load_dataset(path))]
    assert beside(study, found) and not beside(replace(study, protocol=silent), found)


def test_a_finished_study_is_verified(finished) -> None:
    run("verify", finished[0] / "toy")
