"""What the stimuli and activations must be before anything is judged on them."""

import numpy as np
import pytest

from analyses import AnalysisError
from scanner import Subject
from verification.design import check_design
from verification.worlds import world


def changed(column: str, change) -> Subject:
    subject = world(np.random.default_rng(0), items=4, frames=2, layers=1, units=5)
    values = subject.volume[column].to_numpy().astype(object)
    return subject.relabel(column, change(values).astype(str))


def same(values: np.ndarray) -> np.ndarray:
    return values


def doubled(write):
    """The second item, rows 2 and 3, takes what the first has, rows 0 and 1."""

    def change(values: np.ndarray) -> np.ndarray:
        values[2:4] = [write(value) for value in values[0:2]]
        return values

    return change


def test_sound_stimuli_pass() -> None:
    check_design(changed("item", same), "category")


@pytest.mark.parametrize("write", [str.upper, "{}!".format, " {}".format, str.title])
def test_one_word_in_two_spellings_is_refused(write) -> None:
    with pytest.raises(AnalysisError, match="are the same word"):
        check_design(changed("item", doubled(write)), "category")


def test_items_without_letters_are_told_apart_by_their_signs() -> None:
    def signs(values: np.ndarray) -> np.ndarray:
        values[:2], values[2:4] = "+", "-"
        return values

    check_design(changed("item", signs), "category")


def test_one_text_of_two_items_is_refused() -> None:
    with pytest.raises(AnalysisError, match="share the text 'gbghaa10 in frame 0'"):
        check_design(changed("text", doubled(str)), "category")


def test_an_item_with_two_labels_is_refused() -> None:
    def first(values: np.ndarray) -> np.ndarray:
        values[-2:] = values[0]
        return values

    with pytest.raises(AnalysisError, match="has two values of 'category'"):
        check_design(changed("item", first), "category")


def test_a_frame_that_a_category_lacks_is_named() -> None:
    subject = changed("item", same)
    away = (subject.volume["frame"] == "frame1") & (subject.volume["category"] == "category2")
    with pytest.raises(AnalysisError, match="'frame1' never has 'category' 'category2'"):
        check_design(subject.take(np.flatnonzero(~away)), "category")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_named(bad: float) -> None:
    subject = changed("item", same)
    x = subject.volume["resid_post"].to_numpy().copy()
    x[5, 0, 2] = bad
    volume = subject.volume.assign(resid_post=(("stimulus", "layer", "unit"), x))
    with pytest.raises(AnalysisError, match="resid_post is not finite at stimulus 5"):
        check_design(subject.replace_volume(volume), "category")
