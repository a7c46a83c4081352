"""Whole studies through the command line, on a toy model; then everything that can be tampered."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import sae_lens
import torch
import xarray as xr
from scipy.stats import spearmanr

from protocols.cli import app
from protocols.verify import VerifyError, rerun
from scanner import Model, find_source
from tests.conftest import run

WORDS = {
    "animals": ["cat", "beaver", "horse", "otter", "mole", "deer"],
    "tools": ["hammer", "saw", "chisel", "wrench", "drill", "file"],
    "food": ["bread", "soup", "cheese", "noodle", "rice", "pie"],
}
FRAMES = ["There was {} here.", "The word is {} now.", "They wrote {} down."]
PROTOCOL = """\
study: toy
subjects: [{model}]
stimuli: words.csv
scan: {{sites: [resid_post], twins: 2}}
analyses:
  decode: {{probe: {{site: resid_post, item_folds: 2}}}}
  prefer: {{selectivity: {{site: resid_post, top: 5, splits: 5}}}}
hypotheses:
  - id: decodable
    claim: The category can be read.
    rationale: A model that was never trained should not know it.
    measure: decode.balanced_accuracy
    at: {{layer: 1}}
    expect: greater
    than: chance
    smallest_effect: 0.2
    alpha: 0.05
    alternatives: {{penalty: [3.0]}}
    controls:
      untrained_twin: {{margin: 0.1}}
      shuffled_labels: {{permutations: 19}}
      surface_only: {{margin: 0.05}}
      split_half: {{margin: 0.0, splits: 3}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_source) -> Path:
    """A folder with a protocol and the results of a whole run on a toy model."""
    folder = tmp_path_factory.mktemp("study")
    rows = [
        f"{frame.format(item)},{item},frame{number},{category}"
        for number, frame in enumerate(FRAMES)
        for category, items in WORDS.items()
        for item in items
    ]
    (folder / "words.csv").write_text("\n".join(["text,item,frame,category", *rows]) + "\n")
    model = tiny_source("llama", seed=100).folder  # no seed of a twin
    (folder / "protocol.yaml").write_text(PROTOCOL.format(model=model))
    run(folder / "protocol.yaml", "--results", folder / "results")
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished study, to tamper with."""
    return shutil.copytree(finished, tmp_path / "study")


def verdict_of(folder: Path) -> dict:
    return json.loads((folder / "results/toy/verdicts.json").read_text())["verdicts"][0]


def subject_of(folder: Path) -> str:
    """Name of the toy model, which depends on the models made before it."""
    written = json.loads((folder / "results/toy/verdicts.json").read_text())
    return written["recordings"][0]["subject"]


def test_a_run_leaves_what_the_readme_of_results_says(finished: Path) -> None:
    results = finished / "results"
    home = {path.relative_to(results / "toy").as_posix() for path in (results / "toy").rglob("*.*")}
    model = subject_of(finished)
    names = [model, f"{model}.twin0", f"{model}.twin1"]
    assert home == {
        "protocol.yaml", "stimuli.csv", "verdicts.json", "report.html", "evidence/decodable.nc",
        *(f"measures/{analysis}--{name}.nc" for analysis in ("decode", "prefer") for name in names),
    }  # fmt: skip
    assert len(list((results / "volumes").glob("*.zarr"))) == 3
    lines = (results / "ledger.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds == ["registration", "recording", "recording", "recording", "verdicts"]


def test_an_untrained_toy_model_is_not_found_to_know_categories(finished: Path) -> None:
    found = verdict_of(finished)
    assert found["status"] in ("null", "inconclusive")
    assert not found["exploratory"]
    assert len(found["checks"]) == 4
    told = [(one["settings"], one["registered"]) for one in found["curve"]["specifications"]]
    assert sorted(told, key=lambda one: one[1]) == [
        ({"penalty": 3.0}, False), ({"penalty": 1.0}, True)
    ]  # fmt: skip
    assert found["curve"]["p"] > 0.05
    page = (finished / "results/toy/report.html").read_text()
    assert "Under other settings" in page and "Simonsohn, U., Simmons, J. P." in page


def test_running_again_records_nothing_and_changes_no_byte(study: Path, capfd) -> None:
    def contents() -> dict[str, bytes]:
        files = (study / "results").rglob("*")
        return {str(path): path.read_bytes() for path in files if path.is_file()}

    before = contents()
    run(study / "protocol.yaml", "--results", study / "results")
    out, err = capfd.readouterr()
    assert "decodable" in out and "report: " in out
    assert "nothing has changed since the verdicts were written" in err
    assert "judging" not in err
    assert contents() == before


def test_an_edited_hypothesis_is_a_new_version_and_the_drawer_keeps_the_old(
    study: Path, capfd
) -> None:
    protocol = study / "protocol.yaml"
    status = verdict_of(study)["status"]
    protocol.write_text(
        protocol.read_text().replace("smallest_effect: 0.2", "smallest_effect: 0.3")
    )
    run("register", protocol, "--results", study / "results")
    said = capfd.readouterr().out
    last = json.loads((study / "results/ledger.jsonl").read_text().splitlines()[-1])
    assert f"decodable (version 2): {last['sha256']}" in said
    assert last["digest"] in said
    run("ledger", "--results", study / "results")
    drawer = _flat(capfd, out=True)
    assert last["digest"] in drawer
    assert re.search(rf"decodable \(version 1\).*{status}, superseded", drawer)
    assert re.search(r"decodable \(version 2\).*never reported", drawer)
    # Its data were there before it.
    run(protocol, "--results", study / "results")
    assert verdict_of(study)["exploratory"]
    capfd.readouterr()
    run("ledger", "--results", study / "results")
    assert "(exploratory)" in _flat(capfd, out=True)


@pytest.mark.parametrize(
    ("form", "headings"),
    [
        ("osf", ["Title", "Hypotheses", "Existing data", "Sample size", "Inference criteria"]),
        ("aspredicted", ["1) Have any data been collected", "8) Anything else"]),
    ],
)
def test_what_is_registered_is_told_in_the_words_of_a_registry(
    study: Path, capfd, form: str, headings: list[str]
) -> None:
    told = {}
    for folder in ("results", "empty"):
        run("register", study / "protocol.yaml", "--results", study / folder, "--export", form)
        told[folder] = capfd.readouterr().out
        for heading in headings:
            assert f"\n## {heading}" in f"\n{told[folder]}"
        lines = (study / folder / "ledger.jsonl").read_text().splitlines()
        assert json.loads(lines[0])["sha256"] in told[folder]
        assert json.loads(lines[-1])["digest"] in told[folder]
        assert "The category can be read." in told[folder]
        assert "at least 0.2 (one-sided alpha 0.05)" in told[folder]
        assert "18 items, 6 to 6 a category" in told[folder]
        assert "- decodable: penalty of 3.0" in told[folder]
    assert "Yes: 3 recordings of this study" in told["results"]
    assert "No. None of the recordings" in told["empty"]


def test_a_number_is_traced_to_its_registration_stimuli_and_weights(study: Path, capfd) -> None:
    home = study / "results/toy"
    run("trace", home, "decodable")
    said = capfd.readouterr().out
    verdict = verdict_of(study)
    for expected in (verdict["status"], verdict["registration"], str(verdict["estimate"])):
        assert expected in said
    volume = xr.open_zarr(study / "results" / verdict["volumes"][0]["path"], consolidated=False)
    for key in ("weights_sha256", "stimuli_sha256", "tokenizer_sha256", "code_version"):
        assert volume.attrs[key] in said
    for one in verdict["volumes"]:
        assert one["sha256"] in said
    run("trace", home, "decoded", code=1)
    assert "has no verdict on 'decoded'; it has decodable" in _flat(capfd)
    run("trace", study, "decodable", code=1)
    assert "is not the folder of a finished study" in _flat(capfd)


def test_judging_again_from_the_recordings_gives_the_same_bytes(study: Path, capfd) -> None:
    home = study / "results/toy"
    files = [path for path in home.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    ledger = (study / "results/ledger.jsonl").read_bytes()
    shutil.rmtree(home)
    run(study / "protocol.yaml", "--results", study / "results")
    assert "judging" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
    assert (study / "results/ledger.jsonl").read_bytes() == ledger


def test_a_damaged_result_is_made_anew(study: Path, capfd) -> None:
    report = study / "results/toy/report.html"
    before = report.read_bytes()
    report.write_bytes(b"")
    run(study / "protocol.yaml", "--results", study / "results")
    assert report.read_bytes() == before
    assert "judging" in capfd.readouterr().err


def test_the_single_steps_give_what_the_whole_gives(study: Path, capfd) -> None:
    before = verdict_of(study)
    shutil.rmtree(study / "results/toy")
    for name in ("record", "analyse", "judge", "report"):
        run(name, study / "protocol.yaml", "--results", study / "results")
    assert verdict_of(study) == before
    run("verify", study / "results/toy")
    assert "1 verdicts were computed again and stand" in capfd.readouterr().out


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(study: Path, capfd) -> None:
    shutil.rmtree(study / "results")
    run(study / "protocol.yaml", "--results", study / "results", "--dry-run")
    out = capfd.readouterr().out
    assert "54" in out and "3 layers" in out and "MB" in out
    assert not (study / "results").exists()


def test_a_step_before_its_time_says_which_one_is_missing(study: Path, capfd) -> None:
    shutil.rmtree(study / "results")
    run("judge", study / "protocol.yaml", "--results", study / "results", code=1)
    assert "has not been recorded; run `scan record`" in capfd.readouterr().err


def test_a_hypothesis_changed_after_the_recording_is_exploratory(study: Path, capfd) -> None:
    protocol = study / "protocol.yaml"
    protocol.write_text(protocol.read_text().replace("smallest_effect: 0.2", "smallest_effect: 9"))
    run(protocol, "--results", study / "results")
    assert verdict_of(study)["exploratory"]
    assert "not a finding" in " ".join(capfd.readouterr().out.split())
    run("verify", study / "results/toy")


def test_a_layer_that_the_model_does_not_have_is_found_before_anything_is_frozen(
    study: Path, capfd
) -> None:
    shutil.rmtree(study / "results")
    protocol = study / "protocol.yaml"
    protocol.write_text(protocol.read_text().replace("layer: 1", "layer: 7"))
    run(protocol, "--results", study / "results", code=1)
    assert "line 13: hypotheses.0.at.layer: 7 is none of the model's 3" in _flat(capfd)
    assert not (study / "results/ledger.jsonl").exists()


def _without_alternatives(protocol: Path) -> str:
    """Its text without those settings, which claims of other analyses and subjects lack."""
    return re.sub(r"    alternatives: .*\n", "", protocol.read_text())


def test_two_subjects_are_recorded_and_judged_side_by_side(tmp_path, finished, tiny_source) -> None:
    shutil.copy(finished / "words.csv", tmp_path)
    models = [tiny_source("llama", seed=100).folder, tiny_source("gpt2", seed=101).folder]
    text = _without_alternatives(finished / "protocol.yaml")
    text = text.replace(f"[{models[0]}]", f"[{models[0]}, {models[1]}]")
    start = text.index("  - id")
    one = text[start:].replace("  - id: decodable", f"  - id: first\n    subject: {models[0]}")
    two = text[start:].replace("  - id: decodable", f"  - id: second\n    subject: {models[1]}")
    both = "  both: {cka: {site: resid_post, across: true}}\n  models: {rsa_models: "
    both += "{site: resid_post, across: true, models: [category], draws: 20}}\n"
    both += f"  sewn: {{stitching: {{site: resid_post, donor: {models[0]}, layers: [0, 1]}}}}\n"
    text = text.replace("hypotheses:\n", both + "compare: resid_post\nhypotheses:\n")
    start = text.index("  - id")
    three = one.replace("  - id: first\n", f"  - id: alike\n    beside: {models[1]}\n")
    three = three.replace("decode.balanced_accuracy", "universality.cka")
    three = three.replace("shuffled_labels", "shuffled_items").replace(
        "surface_only", "beyond_surface"
    )
    four = two.replace("  - id: second\n", "  - id: reads-on\n")
    four = four.replace("decode.balanced_accuracy", "sewn.kept")
    four = f"{four[: four.index('      untrained_twin')]}      untrained_twin: {{margin: 0.1}}\n"
    four += "      random_target: {margin: 0.1}\n"
    four += "      split_half: {margin: 0.0, splits: 3}\n"
    (tmp_path / "protocol.yaml").write_text(text[:start] + one + two + three + four)
    run(tmp_path / "protocol.yaml", "--results", tmp_path / "results")
    compared = sorted(path.name for path in (tmp_path / "results/toy/measures").glob("both*"))
    first, second = (model.name for model in models)
    twins = [f"both--{first}.twin{seed}--{second}.twin{seed}.nc" for seed in range(2)]
    assert compared == sorted([f"both--{first}--{second}.nc", *twins])
    page = (tmp_path / "results/toy/report.html").read_text()
    assert f"cka of {first} and {second}" in page
    assert f"layer of {second}" in page
    verdicts = json.loads((tmp_path / "results/toy/verdicts.json").read_text())["verdicts"]
    of = [[volume["subject"] for volume in one["volumes"]] for one in verdicts]
    own = [[model.name, *(f"{model.name}.twin{seed}" for seed in (0, 1))] for model in models]
    assert of == [*own, own[0] + own[1], own[1]]
    assert all("stitching" in volume["path"] for volume in verdicts[3]["volumes"])
    assert {check["control"] for check in verdicts[3]["checks"]} >= {"random_target"}
    # What is set in is not set into the model that it is from.
    sewn = sorted(path.name for path in (tmp_path / "results/toy/measures").glob("sewn*"))
    assert sewn == sorted([f"sewn--{second}.nc", *(f"sewn--{second}.twin{n}.nc" for n in (0, 1))])
    assert "prediction that is kept" in page
    assert verdicts[2]["status"] in ("null", "inconclusive", "rejected")
    assert all(check["passed"] is not None for check in verdicts[2]["checks"])
    assert f"{models[0]} beside {models[1]}" in page
    assert "distance of models" in page
    assert "map of models" in page
    run("verify", tmp_path / "results/toy")


def test_a_ladder_of_subjects_is_one_claim(tmp_path, finished, tiny_source, capfd) -> None:
    """Sizes of one family, and whether what they show follows how well they predict."""
    shutil.copy(finished / "words.csv", tmp_path)
    ladder = [
        tiny_source("llama", num_hidden_layers=5, hidden_size=width, seed=width)
        for width in (16, 24, 32, 40, 48)
    ]
    subjects = [f"{{model: {one.folder}, scores: {{size: {n}}}}}" for n, one in enumerate(ladder)]
    text = _without_alternatives(finished / "protocol.yaml")
    text = re.sub(r"subjects: .*", f"subjects: [{', '.join(subjects)}]", text)
    text = text.replace("hypotheses:\n", "  rise: {abstraction: {site: resid_post}}\nhypotheses:\n")
    start = text.index("  - id")
    mean = text[start:].replace("  - id: decodable", "  - id: in-all\n    subject: every")
    fast = mean.replace("in-all", "faster").replace("decode.balanced_accuracy", "rise.ahead")
    fast = fast.replace("layer: 1", "layer: steepest").replace(
        "    subject: every", "    subject: every\n    follows: bits_per_byte"
    )
    size = fast.replace("id: faster", "id: larger").replace("bits_per_byte", "size")
    (tmp_path / "protocol.yaml").write_text(text[:start] + mean + fast + size)
    run(tmp_path / "protocol.yaml", "--results", tmp_path / "results")
    found = json.loads((tmp_path / "results/toy/verdicts.json").read_text())["verdicts"]
    names = [one.name for one in ladder]
    for verdict in found:
        assert [one["subject"] for one in verdict["members"]] == names
        assert len(verdict["volumes"]) == 3 * len(ladder)
        assert verdict["status"] in ("null", "inconclusive", "rejected"), verdict["reason"]
    assert found[0]["members"][0]["score"] is None
    assert [one["score"] for one in found[2]["members"]] == [0, 1, 2, 3, 4]
    # Networks that have learned nothing guess: eight bits a byte and a half, or nearly.
    assert all(1 < one["score"] < 12 for one in found[1]["members"])
    pairs = np.array([(one["estimate"], one["score"]) for one in found[1]["members"]])
    assert found[1]["estimate"] == pytest.approx(spearmanr(*pairs.T).statistic)
    page = unescape((tmp_path / "results/toy/report.html").read_text())
    assert "rank correlation with bits per byte over subjects" in page
    assert "Holmes" in page and "Bonett" in page and "Craven" in page
    run("verify", tmp_path / "results/toy")
    run("trace", tmp_path / "results/toy", "faster")
    capfd.readouterr()


def test_a_quick_look_has_results_of_its_own_and_no_findings(study: Path, capfd) -> None:
    protocol, results = study / "protocol.yaml", study / "results"
    look = "quick: {frames: 2, twins: 1, without: [prefer]}\n"
    protocol.write_text(protocol.read_text() + look)
    whole = (results / "toy/verdicts.json").read_bytes()
    run(protocol, "--results", results, "--quick")
    assert "exploratory" in capfd.readouterr().out
    (verdict,) = json.loads((results / "toy_quick/verdicts.json").read_text())["verdicts"]
    assert verdict["exploratory"]
    assert verdict["items"] == 18 and len(verdict["volumes"]) == 2
    assert (results / "toy/verdicts.json").read_bytes() == whole
    page = unescape((results / "toy_quick/report.html").read_text())
    assert "A quick look: toy" in page and "no verdict is a finding" in page
    assert "not registered before all of" not in page
    run("verify", results / "toy_quick")
    assert "exploratory: true" in (results / "toy_quick/protocol.yaml").read_text()
    # The whole is none of it, and what it claims stands as it was registered.
    run(protocol, "--results", results)
    assert not verdict_of(study)["exploratory"]


def test_features_of_a_dictionary_are_a_site_that_others_read(study: Path, capfd) -> None:
    protocol, results = study / "protocol.yaml", study / "results"
    small = "width: 64, active: 6, tokens: 4000, text: agreement"
    text = protocol.read_text().replace(
        "analyses:\n",
        "analyses:\n"
        f"  told: {{features: {{site: resid_post, layers: [1], {small}}}}}\n"
        "  push: {steering: {site: resid_post, layers: [1], way: features, dictionary: told, "
        "doses: [-2.0, 2.0], random: 2}}\n"
        "  gone: {ablation: {site: resid_post, layers: [1], later: [1], way: features, "
        "dictionary: told, count: 2, random: 2}}\n"
        "  spread: {localisation: {site: told, draws: 9}}\n"
        "  parts: {parcels: {site: resid_post, by: cluster, count: 4, text: agreement}}\n"
        "  net: {connectome: {site: parts, nulls: 2, densities: [0.2]}}\n",
    )
    text = text.replace("{probe: {site: resid_post", "{probe: {site: told")
    protocol.write_text(text)
    run(protocol, "--results", results)
    model = subject_of(study)
    read = xr.open_dataset(results / f"toy/measures/decode--{model}.nc")
    assert read["layer"].values.tolist() == [1]
    names = [model, f"{model}.twin0", f"{model}.twin1"]
    for name in names:
        assert (results / f"toy/measures/spread--{name}.nc").is_file()
        net = xr.open_dataset(results / f"toy/measures/net--{name}.nc")
        assert net.sizes["node"] == 12
        assert net["node"][0].item().startswith("cluster ")
    verdict = verdict_of(study)
    # What is pushed along is what a feature writes, and what is taken out what two of them do.
    assert (results / f"toy/measures/push--{model}.nc").is_file()
    assert (results / f"toy/measures/gone--{model}.twin1.nc").is_file()
    # Features of twins are of dictionaries of their own, and the verdict names all three.
    assert [volume["subject"] for volume in verdict["volumes"]] == names
    assert all("features" in volume["path"] for volume in verdict["volumes"])
    page = (results / "toy/report.html").read_text()
    assert "localisation factor" in page
    assert "what the features of largest d' write" in unescape(page)
    assert "variance that is rebuilt" in page
    run("verify", results / "toy")
    capfd.readouterr()
    run(protocol, "--results", results)
    assert "nothing has changed" in capfd.readouterr().err
    # A dictionary of other settings is other data: what was registered is another version.
    protocol.write_text(text.replace("active: 6", "active: 5"))
    run(protocol, "--results", results)
    run("ledger", "--results", results)
    assert "decodable (version 3)" in _flat(capfd, out=True)


def test_a_released_dictionary_is_read_and_one_that_is_none_is_refused(study: Path, capfd) -> None:
    protocol, results = study / "protocol.yaml", study / "results"
    folder = study / "sae"
    text = protocol.read_text()
    told = (
        f"  told: {{features: {{site: resid_post, layers: [1], release: disk, name: {folder}}}}}\n"
    )
    protocol.write_text(text.replace("analyses:\n", f"analyses:\n{told}"))
    run(protocol, "--results", results, code=1)
    assert f"error: dictionary disk, {folder}: " in _flat(capfd)
    config = sae_lens.TopKSAEConfig(d_in=32, d_sae=64, k=64, device="cpu")
    sae = sae_lens.TopKSAE(config)
    axes = torch.eye(32)
    sae.W_enc.data, sae.W_dec.data = torch.cat([axes, -axes], 1), 3 * torch.cat([axes, -axes])
    sae.save_model(folder)
    run(protocol, "--results", results, code=1)
    assert "times the variance of the site: it was made for another model" in _flat(capfd)
    sae.W_dec.data /= 3
    sae.save_model(folder)
    run(protocol, "--results", results)
    found = xr.open_dataset(results / f"toy/measures/told--{subject_of(study)}.nc")
    assert found["explained"].item() == pytest.approx(1, abs=1e-5)
    assert found["read_each"].item() == 0


def test_models_are_compared_by_a_command_that_claims_nothing(tmp_path, tiny_source, capfd) -> None:
    models = [tiny_source("llama", seed=100).folder, tiny_source("gpt2").folder]
    results = tmp_path / "results"
    run("compare", *models, "--results", results, "--stimuli", "agreement", "--frames", 1)
    first, second = (model.name.lower().replace("_", "-") for model in models)
    home = results / f"compare-{first}-{second}"
    assert str(results / "protocols" / f"{home.name}.yaml") in capfd.readouterr().out
    assert json.loads((home / "verdicts.json").read_text())["verdicts"] == []
    measures = {path.name.split("--")[0] for path in (home / "measures").iterdir()}
    assert measures == {"universality", "transfer", "resemblance"}
    run("compare", models[0], "--results", results, code=1)
    assert "scan compare needs two models or more" in _flat(capfd)


def test_a_model_in_parts_gives_the_same_study(study: Path, tmp_path, capfd) -> None:
    protocol = study / "protocol.yaml"
    model = protocol.read_text().split("subjects: [")[1].split("]")[0]
    names = ("embed_tokens", "layers.0", "layers.2", "norm", "rotary_emb")
    lies = {**{f"model.{name}": "cpu" for name in names}, "lm_head": "cpu"}
    lies["model.layers.1"] = "disk"
    away = f"{{model: {model}, device_map: {json.dumps(lies)}, offload_folder: {tmp_path / 'off'}}}"
    protocol.write_text(protocol.read_text().replace(f"[{model}]", f"[{away}]"))
    run(protocol, "--results", study / "results")
    assert "nothing has changed since" in _flat(capfd)  # where it lies is no part of the study
    run(protocol, "--results", study / "again")
    whole, parts = (
        json.loads((study / results / "toy/verdicts.json").read_text())
        for results in ("results", "again")
    )
    assert whole["verdicts"][0]["estimate"] == parts["verdicts"][0]["estimate"]
    assert whole["verdicts"][0]["checks"] == parts["verdicts"][0]["checks"]
    assert whole["protocol_sha256"] == parts["protocol_sha256"]
    for one, other in zip(whole["recordings"], parts["recordings"], strict=True):
        assert one["path"] == other["path"]
        volume = xr.open_zarr(study / "again" / other["path"], consolidated=False)
        assert json.loads(volume.attrs["parts"])["model.layers.1"] == "disk"


def test_two_subjects_of_one_name_are_refused(study: Path, tmp_path, capfd) -> None:
    protocol = study / "protocol.yaml"
    model = Path(protocol.read_text().split("subjects: [")[1].split("]")[0])
    twice = shutil.copytree(model, tmp_path / "elsewhere" / model.name)
    text = protocol.read_text().replace(f"[{model}]", f"[{model}, {twice}]")
    protocol.write_text(text.replace("  - id", f"  - subject: {model}\n    id"))
    run(protocol, "--results", study / "results", code=1)
    assert f"line 2: subjects: two are called '{model.name}'" in _flat(capfd)


def test_a_protocol_without_hypotheses_records_analyses_and_reports(study: Path) -> None:
    protocol = study / "protocol.yaml"
    text = protocol.read_text()
    protocol.write_text(text[: text.index("hypotheses:")])
    run(protocol, "--results", study / "results")
    assert json.loads((study / "results/toy/verdicts.json").read_text())["verdicts"] == []
    run("verify", study / "results/toy")


SETTINGS = """\
study: toy
subjects: [{model}]
stimuli: words.csv
scan:
  sites: [mlp_act, blocks.*.attn.hook_pattern, logits]
  tokens: last
  store: float16
  top_logits: 3
  twins: 1
analyses:
  prefer: {{selectivity: {{site: mlp_act, top: 5, splits: 5}}}}
"""
TEMPLATE = (
    "{% for one in messages %}<{{ one.role }}>{{ one.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_other_sites_at_the_last_token_are_recorded_analysed_and_told(
    tmp_path, finished, tiny_source
) -> None:
    shutil.copy(finished / "words.csv", tmp_path)
    source = tiny_source("llama")
    (tmp_path / "protocol.yaml").write_text(SETTINGS.format(model=source.folder))
    run(tmp_path / "protocol.yaml", "--results", tmp_path / "results")
    volume = first(f"volumes/{source.name}--*.zarr")(tmp_path / "results")
    recorded = xr.open_zarr(volume, consolidated=False)
    assert set(recorded.data_vars) == {"mlp_act", "attn_probs", "logits", "logits_token"}
    assert recorded["mlp_act"].sizes == {"stimulus": 54, "layer": 3, "neuron": 64}
    assert recorded["mlp_act"].dtype == "float16"
    assert recorded["logits"].sizes == {"stimulus": 54, "rank": 3}
    measured = xr.open_dataset(
        first(f"toy/measures/prefer--{source.name}.nc")(tmp_path / "results"), engine="h5netcdf"
    )
    assert np.isfinite(measured["profile"]).all()
    told = report_of(tmp_path)
    assert (
        "Recorded were mlp_act (64 neurons) and attn_probs (4 heads, for each token that is seen) "
        "in all 3 layers, and logits (3 highest values), at the last token of each text." in told
    )
    assert "computed in float32 on" in told and "and stored in float16" in told
    assert "Tokens that texts begin with alike were computed once (" in told
    run("verify", tmp_path / "results/toy")


def test_texts_are_read_in_a_conversation(tmp_path, finished, tiny_source) -> None:
    shutil.copy(finished / "words.csv", tmp_path)
    model = shutil.copytree(tiny_source("llama", bos=True).folder, tmp_path / "talking")
    (model / "chat_template.jinja").write_text(TEMPLATE)
    text = SETTINGS.format(model=model).replace("  top_logits: 3\n", "  chat: {system: Hi.}\n")
    text = text.replace("sites: [mlp_act, blocks.*.attn.hook_pattern, logits]", "sites: [mlp_act]")
    text = text.replace("tokens: last", "tokens: target_mean").replace("twins: 1", "twins: 0")
    (tmp_path / "protocol.yaml").write_text(text)
    run(tmp_path / "protocol.yaml", "--results", tmp_path / "results")
    told = report_of(tmp_path)
    assert "the chat template of the subject, after the prompt 'Hi.', up to where the ans" in told
    assert "mlp_act (64 neurons) in all 3 layers, averaged over the tokens of the target." in told
    volume = first("volumes/talking--*.zarr")(tmp_path / "results")
    recorded = xr.open_zarr(volume, consolidated=False)
    plain = Model.load(find_source(str(model)), device="cpu").tokenizer
    for row in (0, 20):
        text = f"<system>Hi.\n<user>{recorded['text'].to_numpy()[row]}\n<assistant>"
        ids = plain(text, add_special_tokens=False)["input_ids"]
        assert recorded["text_tokens"].to_numpy()[row] == len(ids)


def test_a_subject_without_a_chat_template_is_refused_in_one_line(study: Path, capfd) -> None:
    protocol = study / "protocol.yaml"
    protocol.write_text(protocol.read_text().replace("twins: 2}", "twins: 2, chat: {}}"))
    run(protocol, "--results", study / "results", code=1)
    assert "has no chat template; leave `chat` out" in _flat(capfd)


def report_of(folder: Path) -> str:
    """The words of a report."""
    page = unescape((folder / "results/toy/report.html").read_text())
    return " ".join(re.sub(r"<[^>]+>", "", page).split())


def first(pattern: str) -> Callable[[Path], Path]:
    return lambda results: sorted(results.glob(pattern))[0]


@pytest.mark.parametrize(
    ("find", "message"),
    [
        (first("toy/report.html"), "report.html was changed after the verdicts were written"),
        (first("toy/verdicts.json"), "verdicts.json was changed"),
        (first("toy/protocol.yaml"), "protocol.yaml was changed"),
        (first("toy/stimuli.csv"), "stimuli.csv was changed"),
        (first("toy/evidence/*.nc"), "decodable.nc was changed"),
        (first("toy/measures/*.nc"), "nc was changed"),
        (first("volumes/*.zarr/resid_post/c/0/0/0"), "its bytes are not those that were recorded"),
        (first("volumes/*.zarr/zarr.json"), "its bytes are not those that were recorded"),
        (first("volumes/*.sha256"), "is not the one that was judged"),
        (first("ledger.jsonl"), "the chain is broken here"),
    ],
)
def test_one_changed_byte_anywhere_fails_loudly(study: Path, capfd, find, message) -> None:
    run("verify", study / "results/toy")
    path = find(study / "results")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    while chr(content[middle]) not in "0123456789abcdef" and "/c/" not in str(path):
        middle += 1  # a digit or letter: the file stays readable
    content[middle] ^= 1
    path.write_bytes(bytes(content))
    run("verify", study / "results/toy", code=1)
    assert message in _flat(capfd)


@pytest.mark.parametrize("beside", [False, True])
def test_a_number_forged_with_all_its_digests_does_not_stand_up_to_the_volumes(
    study: Path, capfd, beside: bool
) -> None:
    """A ledger written anew around a better number: only computing it again can tell."""
    from protocols.run import study_files
    from verification import Ledger

    home = study / "results/toy"
    verdicts = home / "verdicts.json"
    summary = json.loads(verdicts.read_text())
    if beside:
        summary["verdicts"][0]["curve"]["significant"] = 2
    else:
        summary["verdicts"][0]["estimate"] += 0.3
        summary["verdicts"][0]["status"] = "supported"
    verdicts.write_text(json.dumps(summary))
    forged = {summary["verdicts"][0]["registration"]: {"status": "x", "exploratory": False}}
    Ledger(study / "results/ledger.jsonl").judged("toy", study_files(home), forged)
    run("verify", home, code=1)
    said = "curve, significant: written is 2" if beside else "status: written is 'supported'"
    assert f"verdict 'decodable', {said}, computed again" in _flat(capfd)


def test_a_file_that_is_gone_or_was_added_is_named(study: Path, capfd) -> None:
    home = study / "results/toy"
    (home / "extra.txt").write_text("hello")
    run("verify", home, code=1)
    assert "extra.txt was not written by this study" in _flat(capfd)
    (home / "extra.txt").unlink()
    (home / "report.html").unlink()
    run("verify", home, code=1)
    assert "report.html is gone" in _flat(capfd)


def test_nan_planted_in_a_volume_is_named_and_nothing_is_judged(study: Path, capfd) -> None:
    import zarr

    from scanner.volume import digest_file, volume_digest

    volume = first("volumes/*.zarr")(study / "results")
    zarr.open_group(volume)["resid_post"][4, 2, 7] = float("nan")
    digest_file(volume).write_text(volume_digest(volume) + "\n")
    run("judge", study / "protocol.yaml", "--results", study / "results", code=1)
    error = _flat(capfd)
    assert "resid_post is not finite at stimulus 4, layer 2, unit 7" in error
    assert "Traceback" not in error


def test_recorded_anew_the_verdicts_stand(study: Path, capfd) -> None:
    before = sorted(path.name for path in (study / "results").iterdir())
    run("verify", study / "results/toy", "--rerun")
    said = _flat(capfd, out=True)
    assert "replicated: recorded anew, all 1 verdicts stand; estimates differ by at most 0 " in said
    assert sorted(path.name for path in (study / "results").iterdir()) == before


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("status", "supported", "written is supported, recorded anew it is"),
        ("estimate", 0.99, "its estimate was 0.9900, recorded anew it is"),
    ],
)
def test_recorded_anew_another_verdict_is_told(study: Path, key, value, said) -> None:
    path = study / "results/toy/verdicts.json"
    stated = json.loads(path.read_text())
    stated["verdicts"][0][key] = value
    path.write_text(json.dumps(stated))
    with pytest.raises(VerifyError, match=f"verdict 'decodable': {said}"):
        rerun(study / "results/toy")


def test_a_hypothesis_that_is_left_out_is_named_in_the_report(study: Path, capfd) -> None:
    text = (study / "protocol.yaml").read_text()
    (study / "protocol.yaml").write_text(text.replace("- id: decodable", "- id: renamed"))
    run(study / "protocol.yaml", "--results", study / "results")
    page = report_of(study)
    assert "Not in this protocol." in page
    assert "decodable (" in page


def test_a_typo_ends_with_status_one_and_one_line(tmp_path: Path, capfd) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("study: s\nsubjcts: [x]\n")
    run(path, code=1)
    error = capfd.readouterr().err
    assert "line 2: subjcts: unknown key; did you mean 'subjects'?" in " ".join(error.split())
    assert "Traceback" not in error


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"], ["verify", "--help"]])
def test_the_installed_command_starts(arguments: list[str]) -> None:
    command = Path(sys.executable).with_name("scan")
    done = subprocess.run(
        [command, *arguments], capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_list_names_every_part(capsys) -> None:
    app("list", exit_on_error=False, result_action="return_value")
    shown = capsys.readouterr().out
    for name in ("probe", "selectivity", "untrained_twin", "concepts", "smollm2-135m-instruct"):
        assert name in shown


def _flat(capfd, *, out: bool = False) -> str:
    """What was written to stderr or stdout, with the wrapping of the terminal undone."""
    written = capfd.readouterr()
    return " ".join((written.out if out else written.err).split())


def test_a_second_run_in_the_same_folder_is_refused(study: Path, capfd) -> None:
    from filelock import FileLock

    with FileLock(study / "results/.lock"):
        run("judge", study / "protocol.yaml", "--results", study / "results", code=1)
    assert "another run is writing to" in _flat(capfd)


# --- a study that acts

ACTING = """\
study: acts
subjects: [{model}]
stimuli: words.csv
scan: {{sites: [resid_post], twins: 1}}
analyses:
  cut: {{lesion: {{category: animals, parts: [mlp]}}}}
  push: {{steering: {{site: resid_post, layers: [0, 1], random: 2}}}}
hypotheses:
  - id: words-follow
    claim: Words follow the direction of their category.
    rationale: A model that was never trained should not do that.
    measure: push.slope
    at: {{layer: 1}}
    expect: greater
    than: chance
    smallest_effect: 0.1
    alpha: 0.05
    controls:
      untrained_twin: {{margin: 0.05}}
      random_target: {{margin: 0.05}}
      split_half: {{margin: 0.0, splits: 3}}
"""


@pytest.fixture(scope="module")
def acted(tmp_path_factory, tiny_source, finished) -> Path:
    """The results of a whole run that acts on a toy model, on the stimuli of the other study."""
    folder = tmp_path_factory.mktemp("acted")
    # Steering reads what stands before the target.
    text = (finished / "words.csv").read_text().replace("The word is", "Now the word is")
    (folder / "words.csv").write_text(text)
    model = tiny_source("llama", seed=100).folder
    (folder / "acts.yaml").write_text(ACTING.format(model=model))
    run(folder / "acts.yaml", "--results", folder / "results")
    return folder


def test_what_was_done_is_kept_judged_and_verified(acted: Path, capsys) -> None:
    results = acted / "results"
    summary = json.loads((results / "acts/verdicts.json").read_text())
    (found,) = summary["verdicts"]
    assert found["status"] in ("null", "inconclusive") and not found["exploratory"]
    assert {one["control"] for one in found["checks"]} == {
        "untrained_twin", "random_target", "split_half"
    }  # fmt: skip
    # It was judged on what was done, and not on activations.
    done = {one["path"] for one in summary["effects"] if one["analysis"] == "push"}
    assert {one["path"] for one in found["volumes"]} == done
    assert len(summary["effects"]) == 4 and len(summary["recordings"]) == 2
    run("verify", results / "acts")
    assert "6 volumes" in capsys.readouterr().out.replace("\n", " ")
    page = unescape((results / "acts/report.html").read_text())
    for said in ("Directions of category", "What the mlp of a layer is needed for", "Elazar"):
        assert said in page


def test_nothing_is_done_twice_and_what_was_done_otherwise_is_told(acted: Path, tmp_path) -> None:
    folder = shutil.copytree(acted, tmp_path / "again")
    volumes = folder / "results/volumes"
    before = {path.name: path.stat().st_mtime_ns for path in volumes.iterdir()}
    (folder / "results/acts/report.html").unlink()
    run(folder / "acts.yaml", "--results", folder / "results")
    assert {path.name: path.stat().st_mtime_ns for path in volumes.iterdir()} == before
    (effects,) = (one for one in volumes.glob("*-steering-*.zarr") if ".twin" not in one.name)
    chunk = next(path for path in (effects / "shift").rglob("*") if path.is_file()
                 and path.name != "zarr.json")  # fmt: skip
    chunk.write_bytes(b"\0" + chunk.read_bytes()[1:])
    run("verify", folder / "results/acts", code=1)
