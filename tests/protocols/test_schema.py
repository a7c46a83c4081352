"""Mistakes in a protocol: each is one error with file, line, key and what was expected."""

from pathlib import Path

import pytest

from protocols.marked_yaml import ProtocolError, read
from protocols.schema import load_study

GOOD = """\
study: small
subjects: [smollm2-135m-instruct]
stimuli: {set: concepts, items: 4, frames: 2}
scan:
  sites: [resid_post]
  twins: 1
analyses:
  decode:
    probe: {site: resid_post, label: category, item_folds: 2}
hypotheses:
  - id: decodable
    claim: The category can be read.
    rationale: Because it was published.
    measure: decode.balanced_accuracy
    at: {layer: 0}
    expect: greater
    than: chance
    smallest_effect: 0.1
    alpha: 0.01
    controls:
      untrained_twin: {margin: 0.1}
      shuffled_labels: {permutations: 19}
      surface_only: {margin: 0.05}
      split_half: {margin: 0.0}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "protocol.yaml"
    path.write_text(text)
    return path


def test_a_good_protocol_is_read_whole(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, GOOD))
    assert [subject.model for subject in study.protocol.subjects] == ["smollm2-135m-instruct"]
    assert len(study.stimuli) == 10 * 4 * 2
    assert study.analyses["decode"].item_folds == 2
    assert study.protocol.hypotheses[0].controls["surface_only"] == {"margin": 0.05}


@pytest.mark.parametrize("path", sorted(Path("protocols").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_protocols_are_good(path: Path) -> None:
    assert load_study(path).protocol.hypotheses


def test_comments_and_spacing_do_not_change_the_digest_but_settings_do(tmp_path: Path) -> None:
    before = load_study(written(tmp_path, GOOD)).sha256
    respaced = "# a comment\n" + GOOD.replace("{margin: 0.1}", "{ margin:   0.1 }")
    assert load_study(written(tmp_path, respaced)).sha256 == before
    other = GOOD.replace("alpha: 0.01", "alpha: 0.02")
    assert load_study(written(tmp_path, other)).sha256 != before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("subjects:", "subject:", r"line 2: subject: unknown key; did you mean 'subjects'\?"),
        ("  twins: 1", "  twinz: 1", r"line 6: scan.twinz: unknown key; did you mean 'twins'\?"),
        ("twins: 1", "twins: many", "line 6: scan.twins: expected a valid integer, found 'many'"),
        ("twins: 1", "twins: -1", "line 6: scan.twins: expected greater than or equal to 0"),
        (
            "  sites: [resid_post]",
            "  sites: [resid_pots]",
            r"line 5: scan.sites.0: no site is called 'resid_pots'; did you mean 'resid_post'\?",
        ),
        ("    probe:", "    prob:", r"line 9: analyses.decode.prob: .*; did you mean 'probe'\?"),
        ("item_folds: 2", "folds: 2", r"line 9: .*folds: no such setting; did you mean 'item_f"),
        ("item_folds: 2", "item_folds: two", "item_folds: expected int, found 'two'"),
        ("{site: resid_post, label", "{label", "line 9: .*probe: setting 'site' is needed"),
        ("label: category", "label: categry", r"no column 'categry'; did you mean 'category'\?"),
        ("{site: resid_post", "{site: resid_pre", "'resid_pre' is not among the scanned sites"),
        (
            "decode.balanced_accuracy",
            "decode.balanced_acuracy",
            r"line 14: hypotheses.0.measure: 'decode' has no .*did you mean 'balanced_accuracy'\?",
        ),
        ("decode.balanced", "decoed.balanced", r"no analysis is named 'decoed'; did you mean 'd"),
        ("expect: greater", "expect: more", "line 16: .*expect: expected 'greater' or 'less'"),
        ("smallest_effect: 0.1", "smallest_effect: 0", "line 18: .*expected greater than 0"),
        ("alpha: 0.01", "alpha: 0.5", "line 19: .*alpha: expected less than or equal to 0.1"),
        ("    alpha: 0.01\n", "", "line 11: hypotheses.0: key 'alpha' is needed"),
        ("at: {layer: 0}", "at: {layer: deep}", "line 15: hypotheses.0.at.layer: expected"),
        ("untrained_twin:", "untrained_twins:", r"did you mean 'untrained_twin'\?"),
        ("{margin: 0.05}", "{margn: 0.05}", r"margn: no such setting; did you mean 'margin'\?"),
        ("{margin: 0.05}", "{}", "line 23: .*surface_only: setting 'margin' is needed"),
        (
            "      split_half: {margin: 0.0}\n",
            "",
            "line 20: .*cannot be judged without 'split_half'; required are untrained_twin",
        ),
        ("twins: 1", "twins: 0", "no twin is scanned; set `twins` under `scan`"),
        ("set: concepts", "set: concept", "line 3: stimuli: .*neither a shipped set .concepts."),
        ("items: 4", "items: 4000", "line 3: .*items: 4000 asked for, category '.*' has 24"),
        ("study: small", "study: Small Study", "line 1: study: expected"),
        ("study: small\n", "", "key 'study' is needed"),
    ],
)
def test_a_mistake_names_line_key_and_mend(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ProtocolError, match=message) as error:
        load_study(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_several_subjects_need_hypotheses_that_name_one(tmp_path: Path) -> None:
    two = GOOD.replace("[smollm2-135m-instruct]", "[smollm2-135m-instruct, other/model]")
    with pytest.raises(ProtocolError, match="needs `subject`, one of: smollm2-135m-instruct, oth"):
        load_study(written(tmp_path, two))
    named = two.replace("  - id: decodable", "  - subject: other/modle\n    id: decodable")
    with pytest.raises(ProtocolError, match=r"not scanned; did you mean 'other/model'\?"):
        load_study(written(tmp_path, named))


def test_the_same_id_twice_is_an_error(tmp_path: Path) -> None:
    hypothesis = GOOD[GOOD.index("  - id") :]
    with pytest.raises(ProtocolError, match="line 25: hypotheses.1.id: 'decodable' stands twice"):
        load_study(written(tmp_path, GOOD + hypothesis))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "line 1: not YAML"),
        ("a: 1\na: 2\n", "line 2: key 'a' stands twice"),
        ("a: &x [*x]\n", "line 1: an anchor contains itself"),
        ("a: !!python/object/apply:os.system ['true']\n", "line 1: not YAML: could not determine"),
        ("- 1\n- 2\n", "line 1: expected `key: value` lines"),
        ("", "line 1: expected `key: value` lines"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "line 2: keys are plain words"),
        ("? [a, b]\n: 1\n", "line 1: keys are plain words"),
        ("a: 2020-13-45\n", "not YAML"),
    ],
)
def test_yaml_that_is_none_or_does_more_than_hold_values_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ProtocolError, match=message):
        read(written(tmp_path, text))


def test_anchors_that_expand_without_end_are_refused_before_they_do(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ProtocolError, match="aliases expand to more than 20000 values"):
        read(written(tmp_path, "\n".join(lines)))
    few = "a: &x [1, 2]\nb: *x\n"
    assert read(written(tmp_path, few)).data == {"a": [1, 2], "b": [1, 2]}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="nowhere.yaml: no such file"):
        load_study(tmp_path / "nowhere.yaml")
