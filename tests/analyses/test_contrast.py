"""Contrasts: their language, the same t as other libraries, and familywise error over items."""

import numpy as np
import pytest
import statsmodels.api as sm
from nilearn.mass_univariate import permuted_ols

from analyses import AnalysisError
from analyses.contrast import Contrast, partition, permuted, t_map, weights
from scanner import Subject
from verification.worlds import SITE, world

NAMES = ["animals", "body parts", "tools"]
ANIMALS = Contrast(SITE, "category0 - rest", permutations=199)
RNG = np.random.default_rng(0)
CODES = np.repeat(np.arange(4), [6, 8, 10, 6])
WORDS = RNG.normal(size=(30, 40)) + CODES[:, None]  # other categories differ, too
CONFOUNDS = RNG.normal(size=(30, 2)) + CODES[:, None]
WEIGHT = weights("a - 0.5*b - 0.5*d", ["a", "b", "c", "d"])


def orders(draws: int, items: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permuted(np.tile(np.arange(items), (draws, 1)), axis=1)


@pytest.mark.parametrize(
    ("contrast", "expected"),
    [
        ("animals - tools", [1, 0, -1]),
        ("animals - 0.5*tools - 0.5*body_parts", [1, -0.5, -0.5]),
        ("animals - rest", [1, -0.5, -0.5]),
        ("(animals + tools) / 2 - rest", [0.5, -1, 0.5]),
        ("2*animals - 2*rest", [2, -1, -1]),
        ("-tools + animals", [1, 0, -1]),
    ],
)
def test_the_language_of_contrasts(contrast: str, expected: list[float]) -> None:
    np.testing.assert_allclose(weights(contrast, NAMES), expected)


def test_a_category_called_rest_is_that_category() -> None:
    np.testing.assert_array_equal(weights("a - rest", ["a", "b", "rest"]), [1, 0, -1])


@pytest.mark.parametrize(
    ("contrast", "names", "message"),
    [
        ("animal - tools", NAMES, "'animal' is no category; .* animals, body_parts, tools, and re"),
        ("animals", NAMES, "add up to 1 and not to 0.*'animals - rest' does"),
        ("animals - animals", NAMES, "compares nothing"),
        ("animals * tools", NAMES, "compares nothing"),
        ("animals - ", NAMES, "cannot be read"),
        ("1 - 1", NAMES, "cannot be read"),
        ("animals.sum() - tools", NAMES, "not made of"),
        ("@exit() - tools", NAMES, "not made of"),
        ("", NAMES, "not made of"),
        ("a - rest", ["a"], "names every category"),
        ("a_b - c", ["a b", "a_b", "c"], "written alike"),
    ],
)
def test_what_is_no_contrast_is_told(contrast: str, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weights(contrast, names)


@pytest.mark.parametrize("confounds", [CONFOUNDS, CONFOUNDS[:, :0]], ids=["confounds", "none"])
def test_t_is_that_of_statsmodels_and_of_nilearn(confounds: np.ndarray) -> None:
    model = partition(WEIGHT, CODES, confounds)
    t, _ = t_map(WORDS, model, permuted(model, orders(1)))
    design = np.column_stack([np.eye(4)[CODES], confounds])
    contrast = np.concatenate([WEIGHT, np.zeros(confounds.shape[1])])
    for unit, values in enumerate(WORDS.T):
        theirs = sm.OLS(values, design).fit().t_test(contrast)
        assert t[unit] == pytest.approx(float(theirs.tvalue.squeeze()), abs=1e-9)
        assert model.freedom == theirs.df_denom
    found = permuted_ols(
        model.tested[:, None], WORDS, confounding_vars=model.known, n_perm=0, output_type="dict"
    )
    np.testing.assert_allclose(t, found["t"][0], atol=1e-6)


def test_the_familywise_threshold_is_that_of_nilearn() -> None:
    """Quantiles of two samples of 5,000: each has a standard error of about 0.02 at 95 %."""
    model = partition(WEIGHT, CODES, CONFOUNDS)
    _, largest = t_map(WORDS, model, permuted(model, orders(5000)))
    theirs = permuted_ols(
        model.tested[:, None], WORDS, confounding_vars=model.known, n_perm=5000, random_state=1,
        two_sided_test=True, output_type="dict",
    )["h0_max_t"][0]  # fmt: skip
    for quantile in (0.5, 0.9, 0.95):
        ours = np.quantile(largest, quantile)
        assert ours == pytest.approx(np.quantile(theirs, quantile), rel=0.03)


def test_what_was_done_with_a_bound_on_memory_is_the_same(monkeypatch) -> None:
    model = partition(WEIGHT, CODES, CONFOUNDS)
    draws = permuted(model, orders(20))
    whole = t_map(WORDS, model, draws)
    monkeypatch.setattr("analyses.contrast.AT_ONCE", 1)
    for one, other in zip(whole, t_map(WORDS, model, draws), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def measured(subject: Subject, analysis: Contrast = ANIMALS):
    return analysis(subject, rng=np.random.default_rng(0)).isel(layer=0)


def test_planted_units_are_found_and_no_others() -> None:
    """Five units a category; of the contrast those of the first go up and no others' mean does."""
    found = measured(world(np.random.default_rng(1), code="localist", size=3, items=20, layers=1))
    up = found["t"] > found["critical"]
    assert up.to_numpy().nonzero()[0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(found["p"] <= 0.05, np.abs(found["t"]) > found["critical"])
    assert float(found["significant"]) == pytest.approx((found["p"] <= 0.05).mean())
    assert float(found["discovered"]) >= float(found["significant"])


def test_noise_is_found_in_one_world_of_twenty_where_stimuli_find_it_nearly_always() -> None:
    """240 worlds without a code; of Binomial(240, 0.05) 99.9 % lie below 24."""
    by_items = by_rows = 0
    for seed in range(240):
        subject = world(
            np.random.default_rng(seed), categories=3, items=8, frames=6, layers=1, units=30,
            item_spread=1.0, twins=0,
        )  # fmt: skip
        by_items += bool((measured(subject, Contrast(SITE, "category0 - rest", permutations=99))[
            "p"] <= 0.05).any())  # fmt: skip
        if seed < 20:
            volume = subject.volume
            rows = permuted_ols(
                (volume["category"] == "category0").to_numpy().astype(float)[:, None],
                volume[SITE].isel(layer=0).to_numpy(), n_perm=99, random_state=seed,
                output_type="dict",
            )  # fmt: skip
            by_rows += bool((rows["logp_max_t"] >= -np.log10(0.05)).any())
    assert 1 <= by_items <= 24
    assert by_rows >= 16


def test_a_confound_is_taken_out() -> None:
    """Length alone decides, and knows the category: without length nothing is left."""
    subject = world(np.random.default_rng(0), code="length", confound="length", size=3, layers=1)
    plain = measured(subject)
    without = measured(subject, Contrast(SITE, "category0 - rest", confounds=("n_chars",)))
    assert float(plain["significant"]) > 0.5
    assert float(without["significant"]) < 0.05


def test_a_unit_that_does_not_vary_has_no_t() -> None:
    subject = world(np.random.default_rng(0), layers=1)
    subject.volume[SITE][:, :, 3] = 1e5 + 0.1
    found = measured(subject).isel(unit=3)
    assert (float(found["t"]), float(found["p"])) == (0, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contrast": "animals - rest"}, "'animals' is no category.*category0"),
        ({"confounds": ("frame",)}, "'frame' is no column of numbers"),
        ({"confounds": ("dose",)}, "the confounds explain all of it"),
    ],
)
def test_what_cannot_be_computed_is_told(settings: dict, message: str) -> None:
    subject = world(np.random.default_rng(0), layers=1)
    dose = (subject.volume["category"] == "category0").to_numpy().astype(float)
    subject = subject.replace_volume(subject.volume.assign_coords(dose=("stimulus", dose)))
    with pytest.raises(AnalysisError, match=message):
        measured(subject, Contrast(SITE, **{"contrast": "category0 - rest"} | settings))


def test_too_few_items_are_told() -> None:
    with pytest.raises(AnalysisError, match="4 items are too few for 4 columns"):
        measured(world(np.random.default_rng(0), items=1, layers=1))


def test_permutations_that_cannot_reach_alpha_are_refused() -> None:
    with pytest.raises(ValueError, match="18 permutations cannot reach an alpha of 0.05; 19 can"):
        Contrast(SITE, "a - b", permutations=18)
    with pytest.raises(ValueError, match="alpha of 2 is no probability"):
        Contrast(SITE, "a - b", alpha=2)
