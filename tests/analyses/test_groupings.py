"""Two groupings of the same items: each planted alone, both, neither, and spelling in disguise."""

import numpy as np
import pytest
import xarray as xr

from analyses.base import Analysis, AnalysisError
from analyses.groupings import Groupings
from scanner import Subject

USES, ACTIONS, EACH, UNITS = 6, 5, 2, 60
ANALYSIS = Groupings("resid_post", rival="action", label="use", confounds=())
SITE = "resid_post"


def drugs(*, use: float = 0.0, action: float = 0.0, stem: float = 0.0, seed: int = 0) -> Subject:
    """Items that are used and act in ways that cross, and end as they act."""
    rng = np.random.default_rng(seed)
    cells = [(u, a) for u in range(USES) for a in range(ACTIONS) for _ in range(EACH)]
    of_use, of_action = np.array(cells).T
    endings = ["olol", "caine", "tinib", "afil", "sone"]
    names = np.array(["".join(rng.choice(list("bdgklmnprt"), 5)) + endings[a] for _, a in cells])
    planted = use * rng.normal(size=(USES, UNITS))[of_use]
    planted = planted + action * rng.normal(size=(ACTIONS, UNITS))[of_action]
    # What letters alone make: a direction for each ending.
    planted = planted + stem * rng.normal(size=(ACTIONS, UNITS))[of_action]
    planted = planted + rng.normal(size=planted.shape)
    which, frame = np.tile(np.arange(len(cells)), 4), np.repeat(np.arange(4), len(cells))
    x = planted[which] + 0.5 * rng.normal(size=(len(which), UNITS))
    volume = xr.Dataset(
        {SITE: (("stimulus", "layer", "unit"), x[:, None])},
        coords={
            "layer": [0],
            "item": ("stimulus", names[which]),
            "frame": ("stimulus", frame.astype(str)),
            "use": ("stimulus", of_use[which].astype(str)),
            "action": ("stimulus", of_action[which].astype(str)),
            "length": ("stimulus", of_action[which].astype(float)),
        },
    )
    return Subject("planted", volume, {})


def measured(subject: Subject, analysis: Groupings = ANALYSIS) -> dict[str, float]:
    found = analysis(subject, rng=np.random.default_rng(0))
    return {str(name): float(value[0]) for name, value in found.items()}


def test_each_grouping_is_found_where_it_was_planted_and_nowhere_else() -> None:
    used, acts = measured(drugs(use=0.5)), measured(drugs(action=0.5))
    assert used["by_label"] > 0.7 and abs(used["by_rival"] - 0.5) < 0.05
    assert acts["by_rival"] > 0.6 and abs(acts["by_label"] - 0.5) < 0.05
    assert used["rather"] > 0.2 and acts["rather"] < -0.1


def test_where_there_is_neither_neither_is_found() -> None:
    found = [measured(drugs(seed=seed)) for seed in range(12)]
    for name in ("by_label", "by_rival"):
        assert np.mean([one[name] for one in found]) == pytest.approx(0.5, abs=0.02)


def test_both_are_found_where_both_were_planted() -> None:
    found = measured(drugs(use=0.5, action=0.5))
    assert found["by_label"] > 0.6 < found["by_rival"] + 0.05
    assert found["rather"] == pytest.approx(found["by_label"] - found["by_rival"])


def test_what_goes_with_a_column_is_taken_out_if_it_is_named() -> None:
    subject = drugs(action=0.6)
    known = Groupings(SITE, rival="action", label="use", confounds=("action",))
    assert measured(subject)["by_rival"] > 0.6
    assert measured(subject, known)["by_rival"] < measured(subject)["by_rival"] - 0.1


def test_it_is_a_count_of_pairs() -> None:
    """By hand, of distances whose spelling was taken out by least squares."""
    subject = drugs(use=0.4, action=0.3)
    distances, (same, rival) = ANALYSIS._pairs(subject, np.random.default_rng(0))
    near, far = distances[0][same & ~rival], distances[0][~same & ~rival]
    wins = np.mean([np.mean((one < far) + 0.5 * (one == far)) for one in near])
    assert measured(subject)["by_label"] == pytest.approx(wins)


@pytest.mark.parametrize("variable", ["by_label", "rather"])
def test_permutations_deal_both_groupings_together_as_the_gate_does(variable: str) -> None:
    subject = drugs(action=1.0)
    own, gates = (
        one(
            ANALYSIS, subject, variable, draws=60, rng=np.random.default_rng(0),
            shuffles=np.random.default_rng(1),
        )
        for one in (Groupings.permuted, Analysis.permuted)
    )  # fmt: skip
    assert own.dims == gates.dims == ("draw", "layer")
    assert own.attrs["chance"] == gates.attrs["chance"]
    for one in (own, gates):
        error = 4 * float(one.std()) / np.sqrt(60)
        assert float(one.mean()) == pytest.approx(one.attrs["chance"], abs=error)
    assert float(own.std()) == pytest.approx(float(gates.std()), rel=0.5)


def test_groupings_that_do_not_cross_are_refused() -> None:
    subject = drugs()
    nested = subject.relabel("action", np.char.add("of ", subject.volume["use"].to_numpy()))
    with pytest.raises(AnalysisError, match="no two items have 'use' alone in common"):
        measured(nested)
    with pytest.raises(ValueError, match="rival: 'use' is the label itself"):
        Groupings(SITE, rival="use", label="use")
