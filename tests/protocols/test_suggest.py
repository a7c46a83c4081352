"""From a map to a protocol: what two lenses take is named and can be tested, of nothing nothing."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr
import yaml

from protocols.schema import load_study
from tests.conftest import run

# Of letters that the toy tokenizer has no pairs of, so that all words have as many tokens.
DOMAINS = {
    "drugs": ["puk", "fyg", "gnu", "jug", "kup", "zug"],
    "ages": ["vup", "nuk", "pyx", "fux", "guv", "yug"],
    "general": ["zyp", "kuf", "nyk", "xuf", "jyn", "guz"],
}
FRAMES = ["There was a", "I saw the"]
MAP = """\
study: toy
subjects: [{model}]
stimuli: pairs.csv
scan: {{sites: [resid_post], twins: 1}}
analyses:
  where:
    knowledge_map: {{site: resid_post, rest: general, dealings: 19, permutations: 19, random: 0}}
"""


def said(capfd) -> str:
    written = capfd.readouterr()
    return " ".join((written.out + written.err).split())


@pytest.fixture(scope="module")
def mapped(tmp_path_factory, tiny_source) -> Path:
    """The results of a map of a toy model, which knows nothing."""
    folder = tmp_path_factory.mktemp("map")
    rows = [
        (f"{frame} {word}", word, f"frame{number}", domain, "ab"[place % 2], other, *answers)
        for number, frame in enumerate(FRAMES)
        for domain, words in DOMAINS.items()
        for place, (word, other) in enumerate(zip(words, words[::-1], strict=True))
        for answers in [("is", "a") if place % 2 else ("a", "is")]
    ]
    columns = ["text", "item", "frame", "category", "group", "corrupt", "answer", "foil"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "pairs.csv", index=False)
    model = tiny_source("llama", seed=100, num_hidden_layers=8).folder
    (folder / "map.yaml").write_text(MAP.format(model=model))
    run(folder / "map.yaml", "--results", folder / "results")
    return folder


@pytest.fixture
def results(mapped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(mapped / "results", tmp_path / "results")


def plant(results: Path, taken: dict[str, dict[int, list[str]]]) -> None:
    """Have lenses take layers of domains in the saved map, and no others."""
    name = json.loads((results / "toy/verdicts.json").read_text())["recordings"][0]["subject"]
    path = results / f"toy/measures/where--{name}.nc"
    with xr.open_dataset(path) as kept:
        measures = kept.load()
    chosen = xr.zeros_like(measures["chosen_null"])
    agreed = measures["agreed_null"] * 0
    for domain, layers in taken.items():
        for layer, lenses in layers.items():
            for lens in lenses:
                chosen.loc[{"lens": lens, "category": domain, "layer": layer}] = 1
            agreed.loc[{"category": domain, "layer": layer}] = len(lenses)
    measures.assign(chosen_null=chosen, agreed_null=agreed).to_netcdf(path, engine="h5netcdf")


def test_what_two_lenses_take_is_named_and_tested(results: Path, capfd) -> None:
    plant(results, {"drugs": {2: ["rise", "lesion"], 3: ["saliency", "lesion", "patching"],
                              5: ["lesion"]}})  # fmt: skip
    run("suggest", results / "toy")
    told = said(capfd)
    assert "ages: none drugs: 2 (rise, lesion); 3 (saliency, lesion, patching)" in told
    assert "This is a suggestion and no finding" in told
    path = results / "protocols/toy-tuning.yaml"
    assert f"protocol: {path}" in told
    assert "Written by `scan suggest` from the map 'where' of the study toy." in path.read_text()
    study = load_study(path)
    (analysis,) = study.analyses.values()
    assert (analysis.category, analysis.layers) == ("drugs", (2, 3))  # pyright: ignore
    assert [one.measure for one in study.protocol.hypotheses] == [
        "tune_drugs.advantage", "tune_drugs.spared"
    ]  # fmt: skip
    for one in study.protocol.hypotheses:
        assert set(one.controls) == {"untrained_twin", "random_target", "split_half"}
        assert one.at.layer == 2
    assert study.protocol.scan.twins == 1
    assert len(study.stimuli) == 36

    # It can be run as it stands, and nothing that it judges was looked at before.
    run(path, "--results", results)
    found = json.loads((results / "toy-tuning/verdicts.json").read_text())["verdicts"]
    assert [one["id"] for one in found] == ["drugs-reaches", "drugs-spares"]
    for one in found:
        assert one["estimate"] is not None and not one["exploratory"]
        assert all(check["passed"] is not None for check in one["checks"])
    run(path, "--results", results)
    assert "nothing has changed since the verdicts were written" in said(capfd)


def test_an_empty_map_names_nothing_and_writes_nothing(results: Path, capfd) -> None:
    plant(results, {"ages": {5: ["lesion"]}})
    run("suggest", results / "toy")
    told = said(capfd)
    assert "drugs: none" in told and "ages: none" in told
    assert "The map is empty: nothing is suggested" in told
    assert "protocol:" not in told and not (results / "protocols").exists()


def test_layers_by_hand_and_one_domain(results: Path, tmp_path: Path, capfd) -> None:
    plant(results, {"drugs": {2: ["rise", "lesion"]}, "ages": {6: ["rise", "patching"]}})
    out = tmp_path / "mine.yaml"
    run("suggest", results / "toy", "--category", "ages", "--out", out)
    assert list(yaml.safe_load(out.read_text())["analyses"]) == ["tune_ages"]
    assert "drugs" not in said(capfd)
    run("suggest", results / "toy")
    both = yaml.safe_load((results / "protocols/toy-tuning.yaml").read_text())
    assert set(both["analyses"]) == {"tune_drugs", "tune_ages"}
    run("suggest", results / "toy", "--category", "ages", "--layers", 1, 2, "--out", out)
    written = yaml.safe_load(out.read_text())
    assert written["analyses"]["tune_ages"]["tuning"]["layers"] == [1, 2]
    assert "They were named by hand." in written["hypotheses"][0]["rationale"]
    assert "named by hand, and not by the map." in said(capfd)
    load_study(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere holds no verdicts.json; it is not the folder of a finished study"),
        (["toy", "--category", "stars"], "toy has no domain 'stars'; it has ages, drugs"),
        (["toy", "--subject", "another"], "toy has no subject 'another'; it has "),
        (["toy", "--layers", 1], "--layers is for one domain of one subject; say --category"),
        (["toy", "--category", "ages", "--layers", 9], "'ages' cannot be tested: 9 is none of the"),
        (["toy", "--category", "ages", "--layers", 0, 1, 2, 3, 4],
         "'ages' cannot be tested: 5 of the model's 8 layers leave 0 sets"),
    ],
)  # fmt: skip
def test_what_cannot_be_suggested_is_said(results: Path, capfd, arguments, message) -> None:
    run("suggest", results / arguments[0], *arguments[1:], code=1)
    assert message in said(capfd)
    assert not (results / "protocols").exists()


def test_a_study_without_a_map_is_named(mapped: Path, tmp_path: Path, capfd) -> None:
    text = (mapped / "map.yaml").read_text()
    begin = text.index("analyses:")
    (tmp_path / "plain.yaml").write_text(
        text[:begin].replace("pairs.csv", str(mapped / "pairs.csv"))
        + "analyses: {shape: {geometry: {site: resid_post}}}\n"
    )
    run(tmp_path / "plain.yaml", "--results", tmp_path / "results")
    run("suggest", tmp_path / "results/toy", code=1)
    assert "toy holds no knowledge map; add one to its protocol" in said(capfd)
