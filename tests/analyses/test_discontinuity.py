"""A break of one thing's numbers: planted, and what is taken for one."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from analyses.base import Analysis, AnalysisError
from analyses.discontinuity import Discontinuity, _shares, common_change
from scanner import Subject
from verification.numbered_worlds import AT, NUMBERS, numbered_world

SITE = "resid_post"
ANALYSIS = Discontinuity(SITE, of="category0", at=AT)


def numbered(seed: int = 0, **planted: Any) -> Subject:
    return numbered_world(np.random.default_rng(seed), categories=3, twins=0, **planted)


def measured(subject: Subject, analysis: Discontinuity = ANALYSIS) -> xr.Dataset:
    return analysis(subject, rng=np.random.default_rng(0)).isel(layer=0)


def several(name: str, **planted: float) -> np.ndarray:
    return np.array([float(measured(numbered(seed, **planted))[name]) for seed in range(12)])


def test_a_step_is_found_where_it_is_and_nowhere_else() -> None:
    found = measured(numbered(step=3.0))
    assert float(found["excess"]) > 0.15 and float(found["exceeds"]) == 1
    assert int(found["own_change"]["place"][found["own_change"].argmax("place")]) == AT - 1
    beside = measured(numbered(step=3.0), Discontinuity(SITE, of="category0", at=AT + 4))
    assert float(beside["excess"]) < 0.05
    elsewhere = measured(numbered(step=3.0), Discontinuity(SITE, of="category1", at=AT))
    assert float(elsewhere["excess"]) < float(found["excess"]) / 2


def test_a_larger_step_has_a_larger_excess() -> None:
    sizes = [several("excess", step=size).mean() for size in (0.0, 1.5, 3.0)]
    assert sizes[0] < 0 and sizes[1] > sizes[0] + 0.05 and sizes[2] > sizes[1] + 0.1


@pytest.mark.parametrize(
    "planted",
    [{}, {"of_all": 4.0}, {"curve": 4.0}, {"circle": 4.0}],
    ids=["noise", "tokenizer", "curve", "circle"],
)
def test_what_is_no_break_of_one_thing_is_none(planted: dict[str, float]) -> None:
    excess, exceeds = several("excess", **planted), several("exceeds", **planted)
    # One of twelve may be rarer than one of twenty by luck.
    assert np.sum(excess > 0.05) <= 1 and excess.mean() < 0
    assert exceeds.mean() == pytest.approx(0.5, abs=3 * np.sqrt(1 / 12 / 12))


def test_what_all_things_do_is_told_as_shared() -> None:
    nothing, broken = several("shared_change"), several("shared_change", of_all=4.0)
    assert broken.mean() > nothing.mean() + 0.04
    alone = several("common_change", step=4.0) - several("shared_change", step=4.0)
    assert alone.mean() > 0.1 > abs((several("common_change", of_all=4.0) - broken).mean())


def test_a_step_that_goes_with_the_length_of_numbers_is_none() -> None:
    subject = numbered(step=3.0)
    longer = (subject.volume["number"].to_numpy() >= AT).astype(int)
    named = subject.relabel("n_chars", longer)
    assert float(measured(named)["excess"]) < 0 < float(measured(subject)["excess"])
    free = Discontinuity(SITE, of="category0", at=AT, confounds=())
    assert float(measured(named, free)["excess"]) > 0.15


def test_shares_are_those_of_products_of_different_sentences() -> None:
    """By hand, for one place: sentences less the mean of others, whose noise is no change."""
    rng = np.random.default_rng(0)
    own, others = rng.normal(size=(5, 30)) + 0.7, [rng.normal(size=(n, 30)) for n in (4, 6)]
    rest = np.mean([some.mean(0) for some in others], axis=0)
    beyond = own - rest
    products = beyond @ beyond.T
    between = (products.sum() - np.trace(products)) / 20
    noise = np.mean([some.var(0, ddof=1).sum() / len(some) for some in others]) / 2
    expected = (between - noise) / np.mean(np.diag(products))

    x = np.concatenate([own, *others])
    names = np.repeat(["a", "b", "c"], [5, 4, 6])
    means = Discontinuity(SITE, of="a", at=1)._means(names)
    found, _, _ = _shares((x @ x.T)[None, None], means[None])
    assert float(found[0, 0, 0]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("jump", "share"), [(0.0, 0.065), (0.5, 0.045), (1.0, 0.305), (2.0, 0.895), (4.0, 1.0)]
)
def test_how_often_a_jump_is_among_the_four_largest(jump: float, share: float) -> None:
    """Of 98 between ages of 1 to 99 on a smooth curve, by halves of eight noisy sentences."""
    rng, among = np.random.default_rng(0), []
    ages = np.arange(1, 100)
    for _ in range(200):
        waves = [np.sin(2 * np.pi * k * ages / 99 + rng.uniform(0, 6)) for k in (1, 2, 3, 4)]
        curve = np.array(waves).T @ rng.normal(size=(4, 64)) / 8
        curve += jump * np.outer(ages >= 18, rng.normal(size=64) / 8)
        halves = curve + 0.5 * rng.normal(size=(8, 99, 64)).reshape(2, 4, 99, 64).mean(1)
        changes = np.diff(halves, axis=1)
        of_one, of_mean = np.sum(changes**2, 2).mean(0), np.sum(changes.mean(0) ** 2, 1)
        jumps = common_change(of_mean, of_one, 2)
        among.append(np.sum(jumps >= jumps[16]) <= 4)
    error = 2.5 * np.sqrt(2 * share * (1 - share) / 200) + 0.01  # of both counts of 200
    assert np.mean(among) == pytest.approx(share, abs=error)


def test_what_is_the_same_in_all_sentences_has_nothing_of_its_own() -> None:
    """As spelling has: rounding would be all that is left, and any share of it."""
    subject = numbered()
    spelled = np.random.default_rng(0).normal(size=(NUMBERS, 40)).cumsum(0)
    x = subject.volume[SITE].transpose("stimulus", "layer", "unit")
    same = x.copy(data=spelled[subject.volume["number"].to_numpy()][:, None])
    found = measured(subject.replace_volume(subject.volume.assign({SITE: same})))
    assert float(found["excess"]) == 0 and not found["own_change"].any()
    assert float(found["shared_change"]) == pytest.approx(1)


def test_permutations_deal_out_sentences_as_the_gate_does() -> None:
    subject = numbered(step=4.0)
    own, gates = (
        one(
            ANALYSIS, subject, "excess", draws=60, rng=np.random.default_rng(0),
            shuffles=np.random.default_rng(1),
        )
        for one in (Discontinuity.permuted, Analysis.permuted)
    )  # fmt: skip
    assert own.dims == gates.dims == ("draw", "layer")
    assert float(own.mean()) == pytest.approx(float(gates.mean()), abs=4 * float(own.std()) / 7)
    assert float(own.std()) == pytest.approx(float(gates.std()), rel=0.5)
    assert float(measured(subject)["excess"]) > float(own.max())


def test_several_stimuli_of_a_sentence_at_a_number_are_one() -> None:
    subject = numbered(step=2.0)
    rows = np.arange(subject.volume.sizes["stimulus"])
    twice = subject.replace_volume(
        xr.concat([subject.volume, subject.volume.isel(stimulus=rows[::-1])], "stimulus")
    )
    xr.testing.assert_allclose(measured(subject), measured(twice))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"of": "age"}, "'category' is nowhere 'age'; it is category0, category1"),
        ({"at": 0}, "'number' has no values on both sides of 0"),
        ({"at": NUMBERS + 1}, f"'number' has no values on both sides of {NUMBERS + 1}"),
        ({"rarer": 0.01}, f"beside 18 'number' has {NUMBERS - 2} places; 100 are needed"),
        ({"number": "group"}, "'group' holds no numbers, but 'group"),
        (
            {"number": "zipf", "at": 4},
            "does not stand at .* of 'zipf'; each is needed at every number",
        ),
    ],
)
def test_what_cannot_be_asked_is_said(change: dict[str, Any], message: str) -> None:
    settings = {"of": "category0", "at": AT} | change
    with pytest.raises(AnalysisError, match=message):
        measured(numbered(), Discontinuity(SITE, **settings))


def test_one_sentence_has_nothing_in_common() -> None:
    subject = numbered()
    items = subject.volume["item"].to_numpy()
    alone = np.where(items == items[0], "single", subject.volume["category"].to_numpy())
    with pytest.raises(AnalysisError, match="a value of 'category' has 1 item; 2 are needed"):
        measured(subject.relabel("category", alone))


@pytest.mark.parametrize(
    ("settings", "message"), [({"knots": 2}, "knots must be at least 3"), ({"rarer": 0.5}, "rarer")]
)
def test_settings_without_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Discontinuity(SITE, of="category0", at=AT, **settings)
