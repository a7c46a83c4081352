"""Decoding token by token: a code that comes with the target and goes later."""

import numpy as np
import pytest
import xarray as xr

from analyses import AnalysisError
from analyses.probe import Probe
from analyses.time_course import TimeCourse
from scanner import Subject
from verification.worlds import SITE, world

PLAIN = TimeCourse(SITE, before=2, after=2)


def planted(*, missing: float = 0.0) -> tuple[Subject, Subject]:
    """Noise before the target, the recording at it and after it, noise again one token later."""
    rng = np.random.default_rng(0)
    subject = world(rng, code="direction", size=1.5, layers=2, twins=0)
    x, at = subject.volume[SITE], subject.volume["target_position"].to_numpy()
    rows, of, where = [], [], []
    for offset in (-1, 0, 1, 2):
        some = np.flatnonzero(rng.random(len(x)) >= (missing if offset == 2 else 0))
        carried = offset in (0, 1)
        rows.append(x.to_numpy()[some] if carried else rng.normal(size=(len(some), *x.shape[1:])))
        of.append(some)
        where.append(at[some] + offset)
    order = np.argsort(np.concatenate(of), kind="stable")
    volume = subject.volume.drop_vars(SITE).assign(
        {SITE: (("token", *x.dims[1:]), np.concatenate(rows)[order])}
    )
    tokens = volume.assign_coords(
        token_stimulus=("token", np.concatenate(of)[order]),
        token_position=("token", np.concatenate(where)[order]),
    )
    return subject, subject.replace_volume(tokens)


def measured(subject: Subject, analysis: TimeCourse = PLAIN) -> xr.Dataset:
    return analysis(subject, rng=np.random.default_rng(0))


def test_the_label_is_read_from_the_target_until_it_is_gone() -> None:
    alone, tokens = planted()
    found = measured(tokens)
    accuracy = found["accuracy"].sel(offset=[-1, 0, 1, 2])
    assert (accuracy[:, [1, 2]] > 0.8).all()
    assert (accuracy[:, [0, 3]] < 0.45).all()
    seed = int(np.random.default_rng(0).integers(2**32))
    expected = Probe(SITE)(alone, rng=np.random.default_rng(seed))["balanced_accuracy"]
    np.testing.assert_allclose(accuracy[:, 1], expected)


def test_places_that_too_few_stimuli_reach_are_no_number() -> None:
    found = measured(planted(missing=0.97)[1])
    assert np.isnan(found["accuracy"].sel(offset=[-2, 2])).all()
    assert float(found["reached"].sel(offset=-2)) == 0
    assert 0 < float(found["reached"].sel(offset=2)) < 0.1
    assert float(found["reached"].sel(offset=0)) == 1


def test_taking_stimuli_takes_their_tokens() -> None:
    subject = planted(missing=0.5)[1]
    rows = np.random.default_rng(1).permutation(subject.volume.sizes["stimulus"])[:40]
    taken = subject.take(rows).volume
    for place, row in enumerate(rows[:5]):
        was, now = (
            one[SITE].isel(token=one["token_stimulus"].to_numpy() == at).to_numpy()
            for one, at in ((subject.volume, row), (taken, place))
        )
        np.testing.assert_array_equal(was, now)
    assert set(taken["token_stimulus"].values) == set(range(40))


def test_what_is_not_recorded_at_every_token_is_refused() -> None:
    assert "scan a site of the layers with `tokens: all`" in PLAIN.misfit(["stimulus", "layer"])
    assert PLAIN.misfit(["token", "layer", "unit"]) == ""
    with pytest.raises(AnalysisError, match="toy: 'resid_post' is not recorded at every token"):
        measured(planted()[0])
    with pytest.raises(ValueError, match="before and after must not be below 0"):
        TimeCourse(SITE, before=-1)
