"""A finished study in the formats of other tools: tables, RDMs, graphs, each with its sources."""

import importlib.util
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import xarray as xr

from analyses.acting import Acting
from analyses.rsa import item_rdms
from protocols.folders import Folders, RunError
from protocols.run import Recorded, subjects_from
from protocols.schema import Study, load_study
from protocols.verify import check_files, check_volumes, folders_of
from scanner import Subject
from scanner.provenance import code_version, file_digest, version
from stimuli import StimulusSet
from verification import Ledger
from verification.statistics import stream

BIDS = "1.10.0"  # the version whose words dataset_description.json uses
MISSING = "n/a"  # of BIDS, in tables
README = """\
# {name}

Exported by `scan export` of lmfmri from the study `{study}`. The layout is that of a derivative of
BIDS as far as it goes for what is no brain: `dataset_description.json`, and beside each table a
`.json` that says what its columns are and where its numbers are from (digests of the recordings,
version of the code). `n/a` is a number that could not be computed.

"""
PARTS = {
    "verdicts.csv": "what was claimed, and what became of it",
    "measures": "each analysis of each subject, a table for each set of dimensions",
    "rdms": "distances of items by layer, for `rsatoolbox.rdm.load_rdm`",
    "graphs": "networks in GraphML, for `networkx.read_graphml`",
}
# Of verdicts.csv; those of the gate are explained in results/README.md.
VERDICTS = {
    "id": "name of the hypothesis", "claim": "as registered", "status": "the verdict",
    "reason": "why", "measure": "the analysis, and which of its numbers", "layer": "from 0 on",
    "estimate": "in units of the measure", "low": "lower end of the interval",
    "high": "upper end of the interval", "reference": "what the estimate is held against",
    "effect": "distance from the reference on the expected side",
    "smallest_effect": "that matters, as registered", "alpha": "error rate, as registered",
    "p": "one-sided", "p_holm": "adjusted over the study's confirmatory hypotheses",
    "items": "that judged", "exploratory": "registered after its data were recorded: no finding",
    "registration": "sha256 in the ledger",
}  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """A finished study that is what was judged.

    Attributes
    ----------
    folders : Folders
    study : Study
    summary : dict
        Its verdicts.json.
    recorded : list of Recorded
    """

    folders: Folders
    study: Study
    summary: dict[str, Any]
    recorded: list[Recorded]

    @cached_property
    def gone(self) -> list[str]:
        """Recordings that are not in the folder of results."""
        paths = [one.path for one in self.recorded]
        return [path for path in paths if not (self.folders.root / path).exists()]

    def sources(self, name: str, subjects: list[str]) -> dict[str, Any]:
        """Where the numbers of an analysis of some subjects are from."""
        (kind,) = self.study.protocol.analyses[name]
        used = [
            {"subject": one.subject, "path": one.path, "sha256": one.sha256}
            for one in self.recorded
            if one.subject in subjects and one.analysis in (None, self.study.volume_of(name))
        ]
        return {
            "Study": self.study.protocol.study,
            "Analysis": {kind: asdict(self.study.analyses[name])},
            "Subjects": subjects,
            "CodeVersion": self.summary["code_version"],
            "ProtocolSHA256": self.study.sha256,
            "StimuliSHA256": self.study.stimuli.digest,
            "Volumes": used,
        }


def export(home: Path, to: Path, *, licence: str | None = None) -> list[str]:
    """Write a finished study for other tools.

    Parameters
    ----------
    home : pathlib.Path
        The folder of the study, ``results/NAME``.
    to : pathlib.Path
        A folder that is not there yet, or is empty.
    licence : str, optional
        Under which the export may be used.

    Returns
    -------
    list of str
        What was written and what was left out, in lines.

    Raises
    ------
    RunError
        If something is in that folder.
    VerifyError, LedgerError, VolumeError
        If a file or a recording is not what was judged.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RunError(f"{to} is not empty; choose a folder that is not there yet")
    finished = _finished(home)
    staging = to.absolute().with_name(f".{to.absolute().name}.writing")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        said = [
            _verdicts(finished, staging),
            *_measures(finished, staging / "measures"),
            _rdms(finished, staging / "rdms"),
            _graphs(finished, staging / "graphs"),
        ]
        _describe(finished, staging, licence)
        if to.exists():
            to.rmdir()
        staging.rename(to)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return said


def _finished(home: Path) -> Finished:
    folders = folders_of(home)
    check_files(folders, Ledger(folders.ledger))
    study = load_study(folders.protocol, stimuli=StimulusSet.from_csv(folders.stimuli))
    summary = json.loads(folders.verdicts.read_text())
    recorded = [Recorded(**one) for one in (*summary["recordings"], *summary["effects"])]
    finished = Finished(folders, study, summary, recorded)
    if not finished.gone:
        check_volumes(folders, recorded, study.stimuli.digest)
    return finished


def _verdicts(finished: Finished, into: Path) -> str:
    rows = []
    for one in finished.summary["verdicts"]:
        low, high = one["interval"]
        rows.append({**one, "low": low, "high": high})
    table = pd.DataFrame(rows, columns=pd.Index(list(VERDICTS)))
    volumes = {one["id"]: one["volumes"] for one in finished.summary["verdicts"]}
    _save_csv(table, into / "verdicts.csv")
    sources = {
        "Study": finished.study.protocol.study,
        "CodeVersion": finished.summary["code_version"],
        "LedgerHead": finished.summary["ledger_head"],
        "Volumes": volumes,
    }
    _save_json(_sidecar(VERDICTS, sources), into / "verdicts.json")
    return f"verdicts.csv: {len(rows)} hypotheses"


def _measures(finished: Finished, into: Path) -> Iterator[str]:
    """Each analysis on each recording, a table for each set of dimensions."""
    packed = importlib.util.find_spec("pyarrow") is not None
    count = 0
    for name, subjects, measures, path in _files(finished):
        for dims, table in _tables(measures):
            stem = "--".join([path.stem, *(["-".join(dims)] if dims else [])])
            sources = finished.sources(name, subjects) | {
                "CodeVersion": measures.attrs["code_version"],
                "Source": path.relative_to(finished.folders.home).as_posix(),
                "SourceSHA256": file_digest(path),
            }
            into.mkdir(exist_ok=True)
            _save_csv(table, into / f"{stem}.csv")
            told = _columns(finished.study, name, table, measures)
            _save_json(_sidecar(told, sources), into / f"{stem}.json")
            if packed:
                table.attrs.update(sources)  # pandas keeps them in the file
                table.to_parquet(into / f"{stem}.parquet", index=False)
            count += 1
    yield f"measures/: {count} tables as CSV" + (" and parquet" if packed else "")
    if not packed:
        yield "no parquet: pyarrow is not installed (pip install pyarrow)"


def _files(finished: Finished) -> Iterator[tuple[str, list[str], xr.Dataset, Path]]:
    """The measures of a study: the analysis, the names of its subjects, what was found, where."""
    for path in sorted((finished.folders.home / "measures").glob("*.nc")):
        name = path.stem.partition("--")[0]
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            measures = opened.load()
        # Not by the name of the file: names of subjects may hold "--" themselves.
        yield name, measures.attrs["subject"].split(" and "), measures, path


def _tables(measures: xr.Dataset) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Variables of the same dimensions side by side, a row for each place."""
    together: dict[tuple[str, ...], list[str]] = {}
    for name, values in measures.data_vars.items():
        together.setdefault(tuple(map(str, values.dims)), []).append(str(name))
    for dims, names in together.items():
        values = measures[names]
        if dims:
            yield dims, values.to_dataframe(dim_order=list(dims)).reset_index()
        else:
            yield dims, pd.DataFrame([{name: values[name].item() for name in names}])


def _columns(study: Study, name: str, table: pd.DataFrame, measures: xr.Dataset) -> dict[str, str]:
    """What each column is."""
    (kind,) = study.protocol.analyses[name]
    known = study.analyses[name].measures
    told = {}
    for column in map(str, table.columns):
        if column in known:
            told[column] = known[column].meaning
        elif column in measures.data_vars:
            told[column] = f"see `{column}` in the documentation of analyses.{kind}"
        else:
            told[column] = "number of the block, from 0 on" if column == "layer" else "label"
        chance = measures[column].attrs.get("chance") if column in measures else None
        if isinstance(chance, float):
            told[column] += f"; {chance:g} where there is no effect"
    return told


def _rdms(finished: Finished, into: Path) -> str:
    """Distances of items, by layer, of each subject and its twins, for each analysis of them."""
    analyses = finished.study.analyses
    asked: dict[str, Any] = {name: one for name, one in analyses.items() if _of_distances(one)}
    if not asked:
        return "no rdms/: no analysis of the study asks for distances of items"
    if finished.gone:
        return f"no rdms/: they are made of recordings, and {finished.gone[0]} is gone"
    sites = {one.site for one in asked.values()} - {*analyses}
    subjects = subjects_from(finished.recorded, finished.folders.root, sites)
    count = 0
    for name, analysis in asked.items():
        for trained in subjects[finished.study.volume_of(name)].values():
            for subject in (trained, *(trained.twin(seed) for seed in trained.twins)):
                # Unlike measures these are computed now.
                sources = finished.sources(name, [subject.name]) | {"CodeVersion": code_version()}
                rng = stream(finished.study.protocol.seed, name)
                into.mkdir(exist_ok=True)
                _save_rdms(subject, analysis, sources, into / f"{name}--{subject.name}", rng=rng)
                count += 1
    return f"rdms/: {count} stacks of RDMs by layer"


def _save_rdms(
    subject: Subject,
    analysis: Any,
    sources: Mapping[str, Any],
    path: Path,
    *,
    rng: np.random.Generator,
) -> None:
    from rsatoolbox.rdm.rdms import RDMs  # slow to import

    found = item_rdms(
        subject,
        analysis.site,
        distance=analysis.distance,
        frame_folds=analysis.frame_folds,
        rng=rng,
    )
    named = {
        column: _letters(subject.volume[column].to_numpy()[found.first])
        for column in ("item", "category")
    }
    layers = subject.volume["layer"].to_numpy()
    rdms = RDMs(
        found.rdms,
        dissimilarity_measure=analysis.distance,
        descriptors={"subject": subject.name, "sources": json.dumps(sources)},
        rdm_descriptors={"layer": layers, "reliability": found.reliability},
        pattern_descriptors=named,
    )
    rdms.save(f"{path}.hdf5")


def _of_distances(analysis: Any) -> bool:
    wanted = ("site", "distance", "frame_folds")
    return not isinstance(analysis, Acting) and all(hasattr(analysis, one) for one in wanted)


def _letters(values: np.ndarray) -> list[str]:
    """Names in ASCII: rsatoolbox saves no others."""
    return [str(one).encode("ascii", "backslashreplace").decode() for one in values]


def _graphs(finished: Finished, into: Path) -> str:
    """The matrices of nodes that measures hold, as weighted graphs."""
    count = 0
    for name, subjects, measures, path in _files(finished):
        for variable, matrix in measures.data_vars.items():
            if matrix.dims != ("node", "other_node"):
                continue
            graph = _graph(matrix)
            sources = finished.sources(name, subjects)
            sources["CodeVersion"] = measures.attrs["code_version"]
            graph.graph["sources"] = json.dumps(sources)
            into.mkdir(exist_ok=True)
            nx.write_graphml(graph, into / f"{path.stem}--{variable}.graphml")
            count += 1
    return f"graphs/: {count} in GraphML" if count else "no graphs/: no measure of it is a network"


def _graph(matrix: xr.DataArray) -> nx.Graph:
    """Nodes by their names, with what is known of each; an edge where the weight is a number."""
    known = [
        str(one) for one, values in matrix.coords.items()
        if values.dims == ("node",) and one != "node"
    ]  # fmt: skip
    graph = nx.Graph(**{key: np.asarray(value).item() for key, value in matrix.attrs.items()})
    names = [str(one) for one in matrix["node"].to_numpy()]
    for place, node in enumerate(names):
        graph.add_node(node, **{one: matrix[one].to_numpy()[place].item() for one in known})
    weights = matrix.to_numpy()
    for one, other in zip(*np.triu_indices(len(names), 1), strict=True):
        if np.isfinite(weights[one, other]):
            graph.add_edge(names[one], names[other], weight=float(weights[one, other]))
    return graph


def _describe(finished: Finished, into: Path, licence: str | None) -> None:
    """dataset_description.json in the words of BIDS, and a page for people."""
    protocol = finished.study.protocol
    name = protocol.title or protocol.study
    code = finished.summary["code_version"]
    described = {
        "Name": name,
        "BIDSVersion": BIDS,
        "DatasetType": "derivative",
        **({} if licence is None else {"License": licence}),
        "GeneratedBy": [
            {
                "Name": "lmfmri",
                "Version": version("lmfmri"),
                "Description": f"scan export; numbers by {code}",
            }
        ],
        "Study": {
            "name": protocol.study,
            "protocol_sha256": finished.study.sha256,
            "stimuli_sha256": finished.study.stimuli.digest,
            "ledger_head": finished.summary["ledger_head"],
            "environment": finished.summary["environment"],
            "volumes": [asdict(one) for one in finished.recorded],
        },
    }
    _save_json(described, into / "dataset_description.json")
    parts = [f"- `{part}`: {what}\n" for part, what in PARTS.items() if (into / part).exists()]
    page = README.format(name=name, study=protocol.study) + "".join(parts)
    (into / "README.md").write_text(page, encoding="utf-8")


def _sidecar(columns: Mapping[str, str], sources: Mapping[str, Any]) -> dict[str, Any]:
    """What a table's columns are, as BIDS has it, and where its numbers are from."""
    told = {column: {"Description": what} for column, what in columns.items()}
    return {**told, "Sources": dict(sources)}


def _save_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, na_rep=MISSING, lineterminator="\n")


def _save_json(value: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
