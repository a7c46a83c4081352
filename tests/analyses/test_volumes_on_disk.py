"""Volumes that memory does not hold are read layer by layer, to the same end."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import scanner.subject
from analyses.base import Analysis, vectors
from analyses.cka import Cka
from analyses.dimensionality import Dimensionality
from analyses.geometry import Geometry
from analyses.number_line import NumberLine
from analyses.probe import Probe
from analyses.rsa import Rsa
from analyses.selectivity import Selectivity
from analyses.span import Span
from analyses.universality import Universality
from scanner import Subject
from scanner.cluster import connected, spread
from verification.cases import Case
from verification.gate import judge
from verification.red_team.fault import claim
from verification.worlds import SITE, world

ANALYSES = (
    Probe(SITE, item_folds=3), Span(SITE, item_folds=3, permutations=19), Geometry(SITE),
    Rsa(SITE), Selectivity(SITE, splits=3), Dimensionality(SITE, splits=3),
    NumberLine(SITE, "zipf", permutations=19), Cka(SITE), Universality(SITE),
)  # fmt: skip


@pytest.fixture(scope="module")
def in_memory() -> Subject:
    return world(
        np.random.default_rng(0), code="direction", size=2, layers=40, items=8, frames=20,
        units=96, twins=0, beside=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def on_disk(in_memory: Subject, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    one, other = (
        written(subject, tmp_path_factory.mktemp("volumes") / "toy.zarr")
        for subject in in_memory.together
    )
    return one.set_beside(other)


def written(subject: Subject, path: Path) -> Subject:
    """Opened as volumes are: nothing is read that is not asked for."""
    sizes = subject.volume[SITE].sizes
    chunks = tuple(1 if name == "layer" else size for name, size in sizes.items())
    bare = subject.volume[[SITE]].reset_coords(drop=True)
    bare = bare.drop_vars(list(bare.coords))
    bare.to_zarr(path, consolidated=False, encoding={SITE: {"chunks": chunks, "compressors": None}})
    values = xr.open_zarr(path, consolidated=False, chunks=None)[SITE].variable
    return replace(subject, volume=subject.volume.assign({SITE: values}))


def of(analysis: Analysis, subject: Subject) -> tuple[Subject, ...]:
    return subject.together if analysis.takes == 2 else (subject.set_beside(),)


@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda one: type(one).__name__)
def test_an_analysis_holds_a_part_of_a_volume(
    analysis: Analysis, in_memory: Subject, on_disk: Subject
) -> None:
    expected = analysis(*of(analysis, in_memory), rng=np.random.default_rng(0))
    whole = sum(one.volume[SITE].nbytes for one in of(analysis, on_disk))
    tracemalloc.start()
    found = analysis(*of(analysis, on_disk), rng=np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    xr.testing.assert_identical(found, expected)
    assert peak < 0.7 * whole


def test_all_layers_at_once_are_what_they_are_one_by_one(on_disk: Subject) -> None:
    x = vectors(on_disk, SITE)
    assert np.array_equal(np.asarray(x), np.stack(list(x)))
    assert np.array_equal(x[-1], np.asarray(x)[-1]) and len(x[10:12]) == 2
    with pytest.raises(IndexError):
        x[40]


def hold_nothing() -> None:
    """Here, or on a worker of a cluster."""
    scanner.subject.HELD_BYTES = 1000


CONTROLS = {"shuffled_labels": {"permutations": 19}, "split_half": {"margin": 0.0, "splits": 2}}
CLAIM = claim(at={"layer": "selected"}, selection=0.34, controls=CONTROLS)


def case(subject: Subject) -> Case:
    return Case(CLAIM, Probe(SITE, item_folds=2), subject.set_beside(), "", False, ())


def test_a_verdict_needs_no_volume_in_memory_here_or_on_a_cluster(
    in_memory: Subject, on_disk: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = judge([case(in_memory)], seed=0)
    monkeypatch.setattr("scanner.subject.HELD_BYTES", 1000)
    assert judge([case(on_disk)], seed=0) == expected
    with connected("local:2") as client, spread(client) as workers:
        client.run(hold_nothing)
        monkeypatch.setattr(Probe, "__call__", lambda *_, **__: pytest.fail("computed here"))
        assert judge([case(on_disk)], seed=0, workers=workers) == expected
