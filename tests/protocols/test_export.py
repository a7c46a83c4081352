"""`scan export`: what other tools read back is what the study holds, with where it is from."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from rsatoolbox.rdm.rdms import load_rdm

from analyses.rdm import correlation
from scanner.provenance import file_digest
from tests.conftest import run

PROTOCOL = """\
study: toy
title: A study of toys
subjects: [{model}]
stimuli: {stimuli}
scan: {{sites: [resid_post], twins: 1}}
analyses:
  alike: {{rsa: {{site: resid_post, distance: correlation, confounds: []}}}}
  wired: {{connectome: {{site: resid_post, nodes: 12, densities: [0.2], splits: 1, nulls: 0, rewirings: 1}}}}
hypotheses:
  - id: tells
    claim: Items lie together by category in the toy.
    rationale: A toy, of which nothing is expected.
    measure: alike.similarity
    at: {{layer: 1}}
    expect: greater
    than: chance
    smallest_effect: 0.1
    alpha: 0.05
    controls: {{untrained_twin: {{margin: 0.05}}, shuffled_labels: {{permutations: 99}}, surface_only: {{margin: 0.05}}, split_half: {{margin: 0.05}}}}
"""  # noqa: E501
CODE = "CodeVersion"


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny_source, toy_csv) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    model = tiny_source("llama", seed=100).folder
    # A name that rsatoolbox cannot save as it is.
    text = toy_csv.read_text().replace("noodle", "nödel")
    (folder / "toy.csv").write_text(text, encoding="utf-8")
    (folder / "toy.yaml").write_text(PROTOCOL.format(model=model, stimuli=folder / "toy.csv"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("protocols.run.cpu_count", lambda: 1)  # to start others takes longer
        run(folder / "toy.yaml", "--results", folder / "results")
    run("export", folder / "results/toy", "--to", folder / "out", "--license", "CC0-1.0")
    return folder / "results"


@pytest.fixture
def out(results: Path) -> Path:
    return results.parent / "out"


def recordings(results: Path) -> dict[str, dict]:
    summary = json.loads((results / "toy/verdicts.json").read_text())
    return {one["subject"]: one for one in summary["recordings"]}


def holds(results: Path, sources: dict, subject: str) -> None:
    """Where a number is from: the volume whose bytes have this digest, and a version of code."""
    (volume,) = sources["Volumes"]
    assert volume["path"] == recordings(results)[subject]["path"]
    digest = (results / volume["path"]).with_suffix(".sha256").read_text().strip()
    assert volume["sha256"] == digest
    assert sources[CODE].startswith("0.") and "+code." in sources[CODE]
    assert sources["Study"] == "toy"


def test_tables_hold_each_number_of_each_measure(results: Path, out: Path) -> None:
    files = sorted((results / "toy/measures").glob("*.nc"))
    assert len(files) == 4
    seen = 0
    for path in files:
        with xr.open_dataset(path) as opened:
            measures = opened.load()
        for table in (out / "measures").glob(f"{path.stem}--*.csv"):
            read = pd.read_csv(table)
            dims = table.stem.removeprefix(f"{path.stem}--").split("-")
            values = read.set_index(dims).to_xarray()
            for name in set(map(str, values.data_vars)) & set(map(str, measures.data_vars)):
                exact = measures[name].reindex({dim: values[dim] for dim in dims})
                np.testing.assert_array_equal(values[name], exact.transpose(*dims))
                seen += 1
    assert seen == sum(len(xr.open_dataset(path).data_vars) for path in files)


def test_beside_each_table_stands_what_it_is_and_where_it_is_from(results, out) -> None:
    tables = [*(out / "measures").glob("*.csv")]
    assert tables
    for table in tables:
        told = json.loads(table.with_suffix(".json").read_text())
        sources = told.pop("Sources")
        assert list(told) == list(pd.read_csv(table).columns)
        assert all(one["Description"] for one in told.values())
        holds(results, sources, *sources["Subjects"])
        assert sources["SourceSHA256"] == file_digest(results / "toy" / sources["Source"])
    name = f"alike--{next(iter(recordings(results)))}--layer.json"
    told = json.loads((out / "measures" / name).read_text())
    assert told["similarity"]["Description"].endswith("; 0 where there is no effect")
    assert told["Sources"]["Analysis"]["rsa"]["distance"] == "correlation"


def test_parquet_is_the_same_and_carries_its_sources(results: Path, out: Path) -> None:
    tables = [*(out / "measures").glob("*.csv")]
    for table in tables:
        packed = pd.read_parquet(table.with_suffix(".parquet"))
        plain = pd.read_csv(table)
        pd.testing.assert_frame_equal(packed, plain, check_dtype=False)
        holds(results, packed.attrs, *packed.attrs["Subjects"])


def test_without_pyarrow_there_is_csv_alone_and_it_is_said(results, tmp_path, monkeypatch, capfd):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "protocols.export.importlib.util.find_spec",
        lambda name, *more: None if name == "pyarrow" else find(name, *more),
    )
    run("export", results / "toy", "--to", tmp_path / "out")
    assert "no parquet: pyarrow is not installed" in capfd.readouterr().out
    assert not [*tmp_path.rglob("*.parquet")] and [*tmp_path.rglob("*.csv")]


def test_rdms_are_those_of_the_items_for_rsatoolbox(results: Path, out: Path) -> None:
    assert len([*(out / "rdms").iterdir()]) == 2
    for name, one in recordings(results).items():
        rdms = load_rdm(str(out / "rdms" / f"alike--{name}.hdf5"))
        assert rdms.dissimilarities.shape == (3, 12 * 11 // 2)
        assert rdms.dissimilarity_measure == "correlation"
        assert list(rdms.rdm_descriptors["layer"]) == [0, 1, 2]
        holds(results, json.loads(rdms.descriptors["sources"]), name)
        # Of layer 1, by the volume alone: means over frames, which have no mean, in spreads.
        volume = xr.open_zarr(results / one["path"], consolidated=False).load()
        x = volume["resid_post"].sel(layer=1).astype(float)
        centred = x.groupby("frame") - x.groupby("frame").mean()
        means = (centred / centred.std("stimulus")).groupby("item").mean().transpose("item", ...)
        np.testing.assert_allclose(rdms.dissimilarities[1], correlation(means.values), atol=1e-6)
        items = [one.encode().decode("unicode_escape") for one in rdms.pattern_descriptors["item"]]
        assert items == list(means["item"].values) and "nödel" in items
        category = dict(zip(volume["item"].values, volume["category"].values, strict=True))
        assert list(rdms.pattern_descriptors["category"]) == [category[one] for one in items]


def test_networks_are_those_of_the_measure_for_networkx(results: Path, out: Path) -> None:
    assert len([*(out / "graphs").iterdir()]) == 2
    for name in recordings(results):
        graph = nx.read_graphml(out / "graphs" / f"wired--{name}--matrix.graphml")
        with xr.open_dataset(results / f"toy/measures/wired--{name}.nc") as opened:
            matrix = opened["matrix"].load()
        nodes = [str(one) for one in matrix["node"].values]
        found = nx.to_numpy_array(graph, nodelist=nodes, nonedge=np.nan)
        upper = np.triu_indices(len(nodes), 1)  # the other half is the same but for rounding
        np.testing.assert_array_equal(found[upper], matrix.values[upper])
        np.testing.assert_array_equal(found, found.T)
        modules = nx.get_node_attributes(graph, "module")
        assert [modules[node] for node in nodes] == list(matrix["module"].values)
        assert graph.graph["layer"] == matrix.attrs["layer"]
        holds(results, json.loads(graph.graph["sources"]), name)


def test_the_whole_is_described_in_the_words_of_bids(results: Path, out: Path) -> None:
    told = json.loads((out / "dataset_description.json").read_text())
    assert told["Name"] == "A study of toys" and told["DatasetType"] == "derivative"
    assert told["License"] == "CC0-1.0" and told["BIDSVersion"]
    assert told["GeneratedBy"][0]["Name"] == "lmfmri" and told["GeneratedBy"][0]["Version"]
    volumes = {one["subject"]: one["sha256"] for one in told["Study"]["volumes"]}
    assert volumes == {name: one["sha256"] for name, one in recordings(results).items()}
    page = (out / "README.md").read_text()
    parts = {one.name for one in out.iterdir() if one.suffix not in (".md", ".json")}
    assert set(re.findall(r"^- `(.*?)`", page, re.MULTILINE)) == parts


def test_verdicts_are_a_table_too(results: Path, out: Path) -> None:
    summary = json.loads((results / "toy/verdicts.json").read_text())
    (row,) = pd.read_csv(out / "verdicts.csv").to_dict("records")
    (verdict,) = summary["verdicts"]
    for key in ("id", "status", "reason", "estimate", "p", "registration"):
        assert row[key] == verdict[key]
    assert [row["low"], row["high"]] == verdict["interval"]
    told = json.loads((out / "verdicts.json").read_text())
    assert set(told) - {"Sources"} == set(row)
    assert told["Sources"]["Volumes"]["tells"] == verdict["volumes"]


def test_what_is_not_what_was_judged_is_not_exported(results: Path, tmp_path: Path, capfd) -> None:
    copy = shutil.copytree(results, tmp_path / "results")
    path = next((copy / "toy/measures").glob("alike*.nc"))
    path.write_bytes(path.read_bytes() + b" ")
    run("export", copy / "toy", "--to", tmp_path / "out", code=1)
    assert "was changed after the verdicts were written" in capfd.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["results"]


def test_without_recordings_rdms_are_left_out_and_it_is_said(results, tmp_path, capfd) -> None:
    copy = shutil.copytree(results, tmp_path / "results")
    shutil.rmtree(copy / "volumes")
    run("export", copy / "toy", "--to", tmp_path / "out")
    assert "no rdms/: they are made of recordings, and volumes/" in capfd.readouterr().out
    assert not (tmp_path / "out/rdms").exists() and (tmp_path / "out/graphs").exists()
    assert "License" not in json.loads((tmp_path / "out/dataset_description.json").read_text())


def test_a_folder_with_something_in_it_is_left_as_it_is(results, tmp_path, capfd) -> None:
    (tmp_path / "precious").write_text("mine")
    run("export", results / "toy", "--to", tmp_path, code=1)
    assert "is not empty; choose a folder that is not there yet" in capfd.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["precious"]
    run("export", tmp_path, "--to", tmp_path / "out", code=1)
    assert "is not the folder of a finished study" in capfd.readouterr().err
