"""Mistakes in a protocol: each is one error with file, line, key and what was expected."""

from dataclasses import asdict
from pathlib import Path

import pytest

from analyses.domain_neurons import DomainNeurons
from analyses.localiser import Localiser
from analyses.rsa import Rsa
from protocols.marked_yaml import ProtocolError, read
from protocols.schema import dims, load_study
from scanner import Penalty, Recording, Training
from scanner.empty_volume import variables
from scanner.reading import read as read_stimuli
from scanner.sites import KINDS

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
    assert load_study(path).analyses


def test_comments_and_spacing_do_not_change_the_digest_but_settings_do(tmp_path: Path) -> None:
    before = load_study(written(tmp_path, GOOD)).sha256
    respaced = "# a comment\n" + GOOD.replace("{margin: 0.1}", "{ margin:   0.1 }")
    assert load_study(written(tmp_path, respaced)).sha256 == before
    other = GOOD.replace("alpha: 0.01", "alpha: 0.02")
    assert load_study(written(tmp_path, other)).sha256 != before


def test_a_list_is_the_tuple_of_an_analysis_and_its_columns_are_known(tmp_path: Path) -> None:
    settings = "rsa: {site: resid_post, label: category, confounds: [zipf, n_tokens]}"
    text = GOOD.replace("probe: {site: resid_post, label: category, item_folds: 2}", settings)
    text = text.replace("decode.balanced_accuracy", "decode.similarity")
    assert load_study(written(tmp_path, text)).analyses["decode"] == Rsa(
        site="resid_post", confounds=("zipf", "n_tokens")
    )
    with pytest.raises(ProtocolError, match=r"line 9: .*confounds: .* no column 'zip'; did you"):
        load_study(written(tmp_path, text.replace("[zipf,", "[zip,")))


def test_a_contrast_is_of_categories_that_the_stimuli_have(tmp_path: Path) -> None:
    settings = "localiser: {site: resid_post, contrast: animals - rest}"
    text = GOOD.replace("probe: {site: resid_post, label: category, item_folds: 2}", settings)
    text = text.replace("decode.balanced_accuracy", "decode.response")
    assert load_study(written(tmp_path, text)).analyses["decode"] == Localiser(
        site="resid_post", contrast="animals - rest"
    )
    message = r"line 9: .*localiser.contrast: 'animal' is no category; categories are animals, body"
    with pytest.raises(ProtocolError, match=message):
        load_study(written(tmp_path, text.replace("animals -", "animal -")))
    others = text.replace("animals - rest", "animals - rest, others: [tools - food, tool - rest]")
    with pytest.raises(ProtocolError, match="line 9: .*localiser.others: 'tool' is no category"):
        load_study(written(tmp_path, others))


def test_a_category_that_an_analysis_names_is_one_of_the_stimuli(tmp_path: Path) -> None:
    silenced = "analyses:\n  silenced: {domain_neurons: {domain: animals}}\n"
    text = GOOD.replace("analyses:\n", silenced)
    assert load_study(written(tmp_path, text)).analyses["silenced"] == DomainNeurons(
        domain="animals"
    )
    message = r"domain_neurons.domain: no 'category' of the stimuli is 'animal'; did you mean 'anim"
    with pytest.raises(ProtocolError, match=message):
        load_study(written(tmp_path, text.replace("domain: animals", "domain: animal")))


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
            r"line 5: scan.sites.0: 'resid_pots' is no site that is known; did you mean 'resid_p",
        ),
        ("    probe:", "    prob:", r"line 9: analyses.decode.prob: .*; did you mean 'probe'\?"),
        ("item_folds: 2", "folds: 2", r"line 9: .*folds: no such setting; did you mean 'item_f"),
        ("item_folds: 2", "item_folds: two", "item_folds: expected int, found 'two'"),
        ("{site: resid_post, label", "{label", "line 9: .*probe: setting 'site' is needed"),
        ("label: category", "label: categry", r"no column 'categry'; did you mean 'category'\?"),
        (
            "probe: {site: resid_post, label: category, item_folds: 2}",
            "contrast: {site: resid_post, contrast: animals - rest, permutations: 9}",
            r"line 9: .*contrast: 9 permutations cannot reach an alpha of 0.05; 19 can",
        ),
        (
            "probe: {",
            "rsa: {confounds: zipf, ",
            r"rsa.confounds: expected a list, each str, found 'z",
        ),
        (
            "probe: {",
            "rsa: {distance: cosine, ",
            "distance: expected 'crossnobis' or 'euclidean' or",
        ),
        (
            "probe: {site: resid_post, label: category, item_folds: 2}",
            "lesion: {category: animals, parts: [blok]}",
            "lesion.parts",
        ),
        (
            "probe: {site: resid_post, label: category, item_folds: 2}",
            "ablation: {site: resid_post, layers: [0], later: [0]}",
            "line 9: analyses.decode.ablation: later: at least 1; in its own block",
        ),
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
        (
            "shuffled_labels: {permutations: 19}",
            "shuffled_labels: {}\n      control_task: {margin: 0.1, type: catagory}",
            "line 23: .*control_task.type: the stimuli have no column 'catagory'; did",
        ),
        (
            "alpha: 0.01",
            "alpha: 0.01\n    alternatives: {penaltie: [0.1]}",
            "alternatives.penaltie: no such setting; did you mean 'penalt",
        ),
        (
            "alpha: 0.01",
            "alpha: 0.01\n    alternatives: {penalty: [heavy]}",
            "alternatives.penalty: expected .*, found 'heavy'",
        ),
        (
            "alpha: 0.01",
            "alpha: 0.01\n    alternatives: {item_folds: [3, 2]}",
            "alternatives.item_folds.*: 2 stands there already",
        ),
        (
            "alpha: 0.01",
            "alpha: 0.01\n    alternatives: {label: [frame]}",
            "another label makes another claim; register it as one",
        ),
        ("twins: 1", "twins: 0", "no twin is scanned; set `twins` under `scan`"),
        (
            "set: concepts",
            "set: concept",
            "line 3: stimuli: .*neither a shipped set .agreement, concepts",
        ),
        ("items: 4", "items: 4000", "line 3: .*items: 4000 asked for, category '.*' has 24"),
        (
            "items: 4",
            "only: {category: [tool]}",
            "line 3: .*only: 'category' is nowhere 'tool' in what is left; it is animals",
        ),
        ("items: 4", "only: {category: []}", "line 3: stimuli.only.category: expected"),
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


SITES = "  sites: [resid_post]"


@pytest.mark.parametrize(
    ("sites", "found"),
    [
        ("[hook_resid_post]", ["resid_post"]),
        ("[blocks.*.hook_resid_post]", ["resid_post"]),
        ("[resid_post, hook_attn_out, hook_embed]", ["resid_post", "attn_out_post", "embeddings"]),
    ],
)
def test_names_of_other_tools_are_read_as_ours(tmp_path: Path, sites: str, found: list) -> None:
    text = GOOD.replace(SITES, f"  sites: {sites}")
    study = load_study(written(tmp_path, text.replace("{site: resid", "{site: hook_resid")))
    assert study.protocol.scan.sites == found
    assert study.analyses["decode"].site == "resid_post"
    ours = GOOD.replace(SITES, f"  sites: [{', '.join(found)}]")
    assert load_study(written(tmp_path, ours)).sha256 == study.sha256


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", "target"),
        ("tokens: target_mean", "target_mean"),
        ("tokens: last", "last"),
        ("tokens: mean", "mean"),
    ],
)
def test_tokens_are_read(tmp_path: Path, given: str, kept: object) -> None:
    study = load_study(written(tmp_path, GOOD.replace(SITES, f"{SITES}\n  {given}")))
    assert study.protocol.scan.kept == kept


def test_settings_of_a_scan_are_read(tmp_path: Path) -> None:
    lines = [
        "  sites: [resid_post, logits, attn_probs]", "  tokens: last", "  store: float16",
        "  share_prefixes: false", "  top_logits: 5", "  truncate: true",
        "  chat: {system: Short.}",
    ]  # fmt: skip
    scan = load_study(written(tmp_path, GOOD.replace(SITES, "\n".join(lines)))).protocol.scan
    assert (scan.store, scan.share_prefixes, scan.top_logits) == ("float16", False, 5)
    assert scan.truncate and scan.chat is not None and scan.chat.system == "Short."
    plain = load_study(written(tmp_path, GOOD)).protocol.scan
    assert (plain.store, plain.share_prefixes, plain.top_logits) == ("float32", True, None)
    assert (plain.tokens, plain.chat, plain.truncate) == ("target", None, False)
    bare = load_study(written(tmp_path, GOOD.replace(SITES, f"{SITES}\n  chat: {{}}")))
    assert bare.protocol.scan.chat is not None and bare.protocol.scan.chat.system is None


NAMES = "target, target_mean, last, mean, all or positions such as"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("sites: []", "line 5: scan.sites: expected at least one, found"),
        ("sites: resid_post", "line 5: scan.sites: expected a valid list, found 'resid_post'"),
        ("sites: [3]", "line 5: scan.sites.0: expected 'embeddings', 'resid_pre', "),
        ("sites: [resid_post, resid_post]", "line 5: scan.sites.1: 'resid_post' stands twice"),
        (
            "sites: [resid_post, hook_resid_post]",
            "scan.sites.1: 'hook_resid_post' is 'resid_post', which stands twice",
        ),
        (
            "sites:\n    - resid_post\n    - blocks.3.hook_attn_out",
            "line 7: scan.sites.1: 'blocks.3.hook_attn_out' is one layer; a scan records all of "
            "them, write 'attn_out_post'",
        ),
        ("sites: [resid_post, mlp_act.1]", "'mlp_act.1' is one layer; .*write 'mlp_act'"),
        (
            "sites: [resid_post, hook_q]",
            "line 5: scan.sites.1: 'hook_q' is none of our sites: it is before the rotation.*"
            "The nearest is 'q'",
        ),
        ("sites: [resid_post, logits.2]", "logits stands outside the blocks; write 'logits'"),
        (
            "tokens: targt",
            rf"line 6: scan.tokens: expected {NAMES} \[0, -1\] \(did you mean 'target'\?\), found",
        ),
        ("tokens: 3", rf"line 6: scan.tokens: expected {NAMES} \[0, -1\], found 3"),
        ("tokens: []", r"line 6: scan.tokens: expected positions as whole numbers, .*found \[\]"),
        ("tokens: [first]", r"scan.tokens: expected positions as whole numbers, such as \[0, -1\]"),
        ("tokens: [true]", "scan.tokens: expected positions as whole numbers, .*found .True"),
        ("tokens: [1, 1]", r"scan.tokens: expected each position once, found \[1, 1\]"),
        ("store: float64", "line 6: scan.store: expected 'float32' or 'float16', found 'float64'"),
        ("share_prefixes: often", "line 6: scan.share_prefixes: expected a valid boolean, found"),
        ("truncate: 3", "line 6: scan.truncate: expected a valid boolean, found 3"),
        ("chat: true", r"line 6: scan.chat: expected keys and values \(system\), found True"),
        ("chat: {sytem: a}", r"line 6: scan.chat.sytem: unknown key; did you mean 'system'\?"),
        ("chat: {system: 3}", "line 6: scan.chat.system: expected a valid string, found 3"),
        ("top_logits: 0", "line 6: scan.top_logits: expected greater than or equal to 1, found 0"),
        (
            "top_logits: 5",
            "line 6: scan.top_logits: no logits are scanned; add 'logits' to `sites`",
        ),
        (
            "sites: [resid_post, attn_probs]\n  tokens: mean",
            "line 6: scan.tokens: 'attn_probs' has no mean over tokens, which see different keys; "
            "scan it with `tokens: target`, not `mean`",
        ),
        (
            "sites: [blocks.*.attn.hook_attn_scores, resid_post]\n  tokens: target_mean",
            "line 6: scan.tokens: 'attn_scores' has no mean over tokens.*not `target_mean`",
        ),
    ],
)
def test_a_mistake_in_what_is_scanned_names_line_key_and_mend(
    tmp_path: Path, lines: str, message: str
) -> None:
    given = f"  {lines}" if lines.startswith("sites:") else f"{SITES}\n  {lines}"
    with pytest.raises(ProtocolError, match=message) as error:
        load_study(written(tmp_path, GOOD.replace(SITES, given)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("site", "tokens", "message"),
    [
        ("resid_post", "all", "recorded at several tokens a stimulus.* scan with `tokens: target`"),
        ("z", "[0, -1]", "'z' is recorded at several tokens a stimulus"),
        ("attn_probs", "target", "'attn_probs' is a number for each pair of tokens"),
        ("attn_scores", "all", "'attn_scores' is a number for each pair of tokens"),
        ("embeddings", "target", "'embeddings' stands outside the layers that this analysis comp"),
        ("logits", "last", "'logits' stands outside the layers"),
    ],
)
def test_an_analysis_of_what_is_not_a_vector_a_stimulus_is_refused_at_its_line(
    tmp_path: Path, site: str, tokens: str, message: str
) -> None:
    text = GOOD.replace(SITES, f"  sites: [{site}]\n  tokens: {tokens}")
    with pytest.raises(ProtocolError, match=f"line 10: analyses.decode.probe.site: .*{message}"):
        load_study(written(tmp_path, text.replace("{site: resid_post", f"{{site: {site}")))


@pytest.mark.parametrize("site", ["resid_pre", "z", "k", "mlp_act", "router"])
@pytest.mark.parametrize("tokens", ["target", "target_mean", "last", "mean"])
def test_an_analysis_of_a_vector_a_stimulus_is_not(tmp_path: Path, site: str, tokens: str) -> None:
    text = GOOD.replace(SITES, f"  sites: [{site}]\n  tokens: {tokens}")
    study = load_study(written(tmp_path, text.replace("{site: resid_post", f"{{site: {site}")))
    assert study.analyses["decode"].site == site


@pytest.mark.parametrize("tokens", ["target", "target_mean", "last", "mean", "all", (0, -1)])
def test_dimensions_are_told_as_volumes_have_them(tiny_model, toy_stimuli, tokens) -> None:
    model = tiny_model("llama")
    kinds = tuple(kind for kind in KINDS if kind not in model.structure.refused)
    recording = Recording(model.source, toy_stimuli, kinds, tokens, "float32")
    made = variables(recording, model, read_stimuli(model, toy_stimuli, tokens))
    assert {kind: dims(kind, tokens) for kind in kinds} == {k: made[k].dims for k in kinds}


def test_several_subjects_need_hypotheses_that_name_one(tmp_path: Path) -> None:
    two = GOOD.replace("[smollm2-135m-instruct]", "[smollm2-135m-instruct, other/model]")
    with pytest.raises(ProtocolError, match="needs `subject`, one of: smollm2-135m-instruct, oth"):
        load_study(written(tmp_path, two))
    named = two.replace("  - id: decodable", "  - subject: other/modle\n    id: decodable")
    with pytest.raises(ProtocolError, match=r"not scanned; did you mean 'other/model'\?"):
        load_study(written(tmp_path, named))


SCORED = [f"{{model: a/{n}, scores: {{mmlu: 0.{n}}}}}" for n in (2, 3, 4, 5)]
FIVE = f"[smollm2-135m-instruct, {', '.join(SCORED)}]"


@pytest.mark.parametrize(
    ("subjects", "named", "message"),
    [
        ("[a/1, a/2]", "subject: every", "'every' needs at least 3 subjects.*the protocol has 2"),
        ("[a/1, a/2, a/3, a/4]", "subject: every\n    follows: bits_per_byte", "at least 5 subj"),
        (FIVE, "subject: a/2\n    follows: mmlu", "say `subject: every`"),
        (FIVE, "subject: every\n    follows: mmul", "'smollm2-135m-instruct' has no score 'mmul'"),
        (FIVE, "subject: every\n    follows: mmlu", "'smollm2-135m-instruct' has no score 'mmlu'"),
        (
            FIVE.replace("mmlu: 0.3", "bits_per_byte: 1"), "subject: every",
            "other names than bits_per_byte",
        ),
        (FIVE.replace("0.3", ".nan"), "subject: every", "finite"),
        (FIVE, "subject: a/2\n    among: [a/2]", "among: is of claims about all subjects; say"),
        (FIVE, "subject: every\n    among: [a/2, a/3, b/4]", "'b/4' is not scanned; did you"),
        (FIVE, "subject: every\n    among: [a/2, a/3, a/2]", "'a/2' stands twice"),
        (FIVE, "subject: every\n    among: [a/2, a/3]", "at least 3 .* and `among` has 2"),
        (
            FIVE, "subject: every\n    among: [a/2, a/3, a/4, a/5]\n    follows: mmlu",
            "at least 5 subj.* and `among` has 4",
        ),
    ],
)  # fmt: skip
def test_claims_about_every_subject_are_held_to_what_they_need(
    tmp_path: Path, subjects: str, named: str, message: str
) -> None:
    text = GOOD.replace("[smollm2-135m-instruct]", subjects)
    text = text.replace("  - id: decodable", f"  - {named}\n    id: decodable")
    with pytest.raises(ProtocolError, match=message):
        load_study(written(tmp_path, text))


def test_a_claim_about_every_subject_speaks_of_each(tmp_path: Path) -> None:
    text = GOOD.replace("[smollm2-135m-instruct]", FIVE)
    text = text.replace("  - id: decodable", "  - subject: every\n    id: decodable")
    text = text.replace("layer: 0", "layer: steepest")
    study = load_study(written(tmp_path, text))
    (hypothesis,) = study.protocol.hypotheses
    assert study.subjects_of(hypothesis) == ["smollm2-135m-instruct", "a/2", "a/3", "a/4", "a/5"]
    assert study.protocol.subjects[1].model_dump()["scores"] == {"mmlu": 0.2}
    assert "scores" not in study.protocol.subjects[0].model_dump()


def test_a_claim_about_every_subject_may_be_about_some(tmp_path: Path) -> None:
    """Only they need the score that it follows."""
    six = FIVE.replace("]", ", {model: a/6, scores: {mmlu: 0.1}}]")
    text = GOOD.replace("[smollm2-135m-instruct]", six)
    among = "[a/6, a/2, a/3, a/5, a/4]"
    text = text.replace(
        "  - id: decodable",
        f"  - subject: every\n    among: {among}\n    follows: mmlu\n    id: decodable",
    )
    study = load_study(written(tmp_path, text.replace("layer: 0", "layer: steepest")))
    (hypothesis,) = study.protocol.hypotheses
    assert study.subjects_of(hypothesis) == ["a/6", "a/2", "a/3", "a/5", "a/4"]
    assert "among" not in hypothesis.model_copy(update={"among": None}).model_dump()


PAIRED = """\
subject: every
    among: [a/2, a/3, a/4, a/5, a/6]
    minus: [b/2, b/3, b/4, b/5, b/6]
"""
GRAPH = "net: {connectome: {site: resid_post, nulls: 0}}"


def of_pairs(folder: Path, pairs: str = PAIRED, **changed: str) -> Path:
    """A protocol with a claim about five pairs, with some lines of the claim changed."""
    models = ", ".join(f"{side}/{number}" for side in "ab" for number in range(2, 7))
    start, claim = GOOD.replace("[smollm2-135m-instruct]", f"[{models}]").split("  - id")
    lines = {
        "measure": "net.modularity", "than": "0", "alpha": "0.05",
        "controls": "{untrained_twin: {margin: 0.1}, rotated_units: {margin: 0.1}, "
        "split_half: {margin: 0}}", **changed,
    }  # fmt: skip
    claim = claim[: claim.index("      untrained_twin")]
    for name, value in lines.items():
        claim = "\n".join(
            f"    {name}: {value}" if line.strip().startswith(f"{name}:") else line
            for line in claim.splitlines()
        )
    start = start.replace("analyses:\n", f"analyses:\n  {GRAPH}\n")
    return written(folder, f"{start}  - {pairs.rstrip()}\n    id{claim}\n")


def test_a_claim_about_pairs_speaks_of_both_sides(tmp_path: Path) -> None:
    study = load_study(of_pairs(tmp_path))
    (hypothesis,) = study.protocol.hypotheses
    sides = [f"{side}/{number}" for side in "ab" for number in range(2, 7)]
    assert study.subjects_of(hypothesis) == sides
    assert "minus" not in hypothesis.model_copy(update={"minus": None}).model_dump()


@pytest.mark.parametrize(
    ("was", "now", "changed", "message"),
    [
        ("    among: [a/2, a/3, a/4, a/5, a/6]\n", "", {}, "minus: is held against .*say `among`"),
        (", b/6]", "]", {}, "of 5 subjects in `among` 4 are held against another"),
        ("b/6", "b/7", {}, "'b/7' is not scanned; did you mean"),
        ("b/6", "b/5", {}, "'b/5' stands in two places of these pairs"),
        ("b/6", "a/2", {}, "'a/2' stands in two places of these pairs"),
        ("minus", "follows: x\n    minus", {}, "minus: a claim about pairs follows no"),
        ("", "", {"than": "chance"}, "than: differences are held against none: `than: 0`"),
        ("", "", {"alpha": "0.01"}, "5 pairs cannot reach an alpha of 0.01: .* p of 0.031; add"),
        ("", "", {"measure": "net.small_world"}, "'net.small_world' has no values below 0"),
    ],
)  # fmt: skip
def test_mistakes_about_pairs_are_named(
    tmp_path: Path, was: str, now: str, changed: dict[str, str], message: str
) -> None:
    with pytest.raises(ProtocolError, match=message):
        load_study(of_pairs(tmp_path, PAIRED.replace(was, now), **changed))


TRAINED = "{model: wired, trained: {grammar: nested, penalty: {kind: wiring, strength: 1e-4}}}"


def test_subjects_that_are_trained_are_told_in_full_and_have_their_dose_for_a_score(
    tmp_path: Path,
) -> None:
    study = load_study(written(tmp_path, GOOD.replace("smollm2-135m-instruct", TRAINED)))
    (spec,) = study.protocol.subjects
    assert (spec.made, spec.made_of, spec.known) == (True, [], {"strength": 1e-4})
    assert spec.followed == ("bits_per_byte", "strength", "learned")
    training = study.training("wired")
    assert training is not None
    assert training == Training(training.grammar, penalty=Penalty("wiring", 1e-4))
    assert study.lesson("wired") is None
    assert list(study.makings(["wired"])) == ["wired"]


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("nested", "nestd", "trained.grammar: grammar 'nestd' is neither a shipped one"),
        ("grammar: nested", "grammar: nested, width: 20", "a multiple of twice the heads"),
        ("kind: wiring", "kind: wires", "wiring"),
        ("kind: wiring", "kind: none", "no strength beside kind 'none'"),
        ("1e-4", "-1", "greater than or equal to 0"),
        ("trained:", "revision: main, trained:", "'wired' is made here and has none"),
        ("trained:", "scores: {strength: 1}, trained:", "other names than strength"),
        ("trained:", "scores: {learned: 1}, trained:", "other names than learned"),
        ("model: wired", "model: a/b", "give it a name of its own"),
        (
            "trained:", "sum: {of: wired, add: {wired: 1}}, trained:",
            "is made by `sum` already; give the trained a subject of its own",
        ),
    ],
)  # fmt: skip
def test_mistakes_about_trained_subjects_are_named(
    tmp_path: Path, was: str, now: str, message: str
) -> None:
    text = GOOD.replace("smollm2-135m-instruct", TRAINED.replace(was, now))
    with pytest.raises(ProtocolError, match=message):
        load_study(written(tmp_path, text))


def test_an_analysis_across_subjects_needs_two_of_them(tmp_path: Path) -> None:
    across = "analyses:\n  both: {cka: {site: resid_post, across: true}}\n"
    text = GOOD.replace("analyses:\n", across)
    message = r"line 8: analyses.both.cka: compares 2 subjects, and the protocol has 1; name anoth"
    with pytest.raises(ProtocolError, match=message):
        load_study(written(tmp_path, text))
    two = text.replace("[smollm2-135m-instruct]", "[smollm2-135m-instruct, other/model]")
    two = two.replace("  - id: decodable", "  - subject: other/model\n    id: decodable")
    assert load_study(written(tmp_path, two)).analyses["both"].takes == 2
    # Inference over subjects is over the items of one, where there is no other.
    alone = text.replace("cka: {site: resid_post", "rsa_models: {site: resid_post")
    assert load_study(written(tmp_path, alone)).analyses["both"].takes is None


TOLD = GOOD.replace(
    "analyses:\n",
    "analyses:\n  told: {features: {site: resid_post, layers: [0, 3]}}\n"
    "  spread: {localisation: {site: told}}\n",
).replace("probe: {site: resid_post", "probe: {site: told")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("dictionary: tolt", "no analysis `features` is named 'tolt'; did you mean 'told'"),
        ("dictionary: decode", "no analysis `features` is named 'decode'"),
        ("dictionary: told, layers: [1]", "'told' tells no layer 1; add it to its `layers`"),
        ("dictionary: mlp", "'mlp' tells mlp_out, another site"),
    ],
)
def test_what_acts_on_features_is_held_to_their_dictionary(
    tmp_path: Path, given: str, message: str
) -> None:
    layers = "" if "layers" in given else ", layers: [0]"
    text = TOLD.replace(
        "analyses:\n",
        "analyses:\n  mlp: {features: {site: mlp_out, layers: [0]}}\n"
        f"  push: {{steering: {{site: resid_post, way: features, {given}{layers}}}}}\n",
    ).replace("sites: [resid_post", "sites: [mlp_out, resid_post")
    with pytest.raises(ProtocolError, match=message):
        load_study(written(tmp_path, text))


def test_features_are_a_site_by_the_name_of_their_analysis(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, TOLD))
    assert study.volume_of("told") == study.volume_of("spread") == "told"
    assert study.volume_of("decode") == "told"
    assert load_study(written(tmp_path, GOOD)).volume_of("decode") is None
    study.check_layers("smollm2-135m-instruct", 4)
    with pytest.raises(ProtocolError, match="3 is none of the model's 3 layers"):
        study.check_layers("smollm2-135m-instruct", 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("site: told}", "site: tolled}", "analyses.spread.localisation.site.*tolled"),
        ("layers: [0, 3]", "layers: [1, 3]", "'decode' does nothing at layer 0, but at 1, 3"),
        ("layers: [0, 3]", "layers: []", "name each once, such as"),
        ("{site: told}", "{site: resid_post}", "'resid_post' has units, not features"),
        (
            "localisation: {site: told}",
            "steering: {site: told, layers: [0]}",
            "'steering' acts on the model, which has no 'told' of its own",
        ),
        ("told", "mlp_out", "analyses.mlp_out: is a site of the model"),
        ("site: resid_post, layers", "site: told, layers", "'features' acts on the model"),
    ],
)
def test_a_mistake_in_features_is_named(tmp_path: Path, old, new, message) -> None:
    with pytest.raises(ProtocolError, match=message):
        load_study(written(tmp_path, TOLD.replace(old, new)))


ALIKE = GOOD.replace("[smollm2-135m-instruct]", "[smollm2-135m-instruct, other/model]")
ALIKE = (
    ALIKE[: ALIKE.index("analyses:")]
    + """\
compare: resid_post
hypotheses:
  - id: alike
    claim: Both lie alike.
    rationale: Because it was published.
    measure: universality.cka
    subject: smollm2-135m-instruct
    beside: other/model
    at: {layer: 0}
    expect: greater
    than: chance
    smallest_effect: 0.1
    alpha: 0.01
    controls:
      untrained_twin: {margin: 0.1}
      shuffled_items: {permutations: 19}
      beyond_surface: {margin: 0.05}
      split_half: {margin: 0.0}
"""
)


def test_a_comparison_stands_for_the_analyses_of_several_subjects(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, ALIKE))
    assert list(study.analyses) == ["universality", "transfer", "resemblance"]
    assert {analysis.site for analysis in study.analyses.values()} == {"resid_post"}
    (hypothesis,) = study.protocol.hypotheses
    assert study.groups_of(hypothesis) == [["smollm2-135m-instruct", "other/model"]]
    own = "analyses:\n  universality: {universality: {site: resid_post}}\n"
    written_out = "  transfer: {transfer: {site: resid_post}}\n"
    written_out += "  resemblance: {resemblance: {site: resid_post}}\n"
    spelt = load_study(written(tmp_path, ALIKE.replace("compare: resid_post\n", own + written_out)))
    assert spelt.sha256 == study.sha256


def test_layers_of_a_claim_are_those_of_its_first_subject(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, ALIKE.replace("layer: 0", "layer: 20")))
    study.check_layers("smollm2-135m-instruct", 30)
    study.check_layers("other/model", 18)
    with pytest.raises(ProtocolError, match="20 is none of the model's 18 layers"):
        study.check_layers("smollm2-135m-instruct", 18)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("compare: resid_post", "compare: [resid_post]", "line 7: compare: expected a site"),
        (
            "compare: resid_post",
            "compare: resid_pots",
            r"line 7: analyses.universality.*resid_pots",
        ),
        (
            "compare: resid_post",
            "compare: resid_post\nanalyses: {transfer: {transfer: {site: resid_post}}}",
            "line 8: analyses.transfer: is what `compare` adds",
        ),
        ("compare: resid_post", "comparre: resid_post", "unknown key; did you mean 'compare'"),
        (
            "    beside: other/model\n",
            "",
            "'universality' compares two subjects; say `beside`, one",
        ),
        (
            "beside: other/model",
            "beside: other/modle",
            "is not scanned; did you mean 'other/model'",
        ),
        ("beside: other/model", "beside: smollm2-135m-instruct", "is the subject itself"),
        ("universality.cka", "resemblance.cka", "is about all subjects at once"),
        (
            "      shuffled_items: {permutations: 19}\n",
            "",
            "cannot be judged without 'shuffled_items'; required are untrained_twin, shuffled_it",
        ),
        ("beyond_surface", "surface_only", "read how alike|tell labels apart, and this one does"),
    ],
)
def test_a_mistake_in_a_comparison_is_named(tmp_path: Path, old, new, message) -> None:
    with pytest.raises(ProtocolError, match=message):
        load_study(written(tmp_path, ALIKE.replace(old, new)))


PARTS = GOOD.replace(
    "analyses:\n",
    "analyses:\n  parts: {parcels: {site: resid_post, by: cluster}}\n",
).replace("site: resid_post, label", "site: parts, label")


def test_parcels_of_all_layers_are_one_layer(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, PARTS))
    assert study.volume_of("decode") == "parts"
    with pytest.raises(ProtocolError, match="'decode' does nothing at layer 2, but at 0"):
        load_study(written(tmp_path, PARTS.replace("layer: 0", "layer: 2")))
    with pytest.raises(ProtocolError, match="'resid_post' has no heads; z has"):
        load_study(written(tmp_path, PARTS.replace("by: cluster", "by: head")))


SEWN = (
    ALIKE.replace(
        "compare: resid_post\n",
        "analyses:\n  sewn:\n    stitching: {site: resid_post, donor: other/model, layers: [0]}\n",
    )
    .replace("    beside: other/model\n", "")
    .replace("universality.cka", "sewn.kept")
    .replace("shuffled_items: {permutations: 19}", "random_target: {margin: 0.1}")
    .replace("      beyond_surface: {margin: 0.05}\n", "")
)


def test_layers_of_a_donor_are_not_those_that_are_written_to(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, SEWN.replace("layers: [0]", "layers: [0, 20]")))
    study.check_layers("smollm2-135m-instruct", 30)
    study.check_layers("other/model", 18)
    with pytest.raises(ProtocolError, match="20 is none of the model's 18 layers"):
        study.check_layers("smollm2-135m-instruct", 18)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("donor: other/model", "donor: other/modle", "is not scanned; did you mean 'other/model'"),
        (
            "subject: smollm2-135m-instruct",
            "subject: other/model",
            "'other/model' is only given to 'sewn', which acts on smollm2-135m-instruct",
        ),
        (", other/model]", "]", "is not scanned"),
        (
            "[smollm2-135m-instruct, other/model]",
            "[other/model]",
            "beside other/model no subject is left to act on; name another",
        ),
    ],
)
def test_a_mistake_in_a_donor_is_named(tmp_path: Path, old, new, message) -> None:
    with pytest.raises(ProtocolError, match=message):
        load_study(written(tmp_path, SEWN.replace(old, new)))


def test_a_claim_about_one_subject_stands_beside_none(tmp_path: Path) -> None:
    two = GOOD.replace("[smollm2-135m-instruct]", "[smollm2-135m-instruct, other/model]")
    both = "  - subject: other/model\n    beside: smollm2-135m-instruct\n    id: decodable"
    with pytest.raises(ProtocolError, match="beside: 'decode' reads one subject; leave it out"):
        load_study(written(tmp_path, two.replace("  - id: decodable", both)))


def test_where_a_model_lies_changes_no_digest_and_what_it_is_rounded_to_does(
    tmp_path: Path,
) -> None:
    def subject(said: str):
        text = GOOD.replace("[smollm2-135m-instruct]", f"[{{model: smollm2-135m-instruct{said}}}]")
        return load_study(written(tmp_path, text))

    plain = load_study(written(tmp_path, GOOD))
    placed = subject(", device_map: auto, max_memory: {0: 70GB, cpu: 100GB}, offload_folder: away")
    assert placed.sha256 == plain.sha256 == subject("").sha256
    placement = placed.protocol.subjects[0].placement
    assert placement is not None and placement.device_map == "auto"
    assert placement.max_memory == {0: "70GB", "cpu": "100GB"}
    assert placement.offload_folder == Path("away")
    mapped = subject(", device_map: {model: 0, lm_head: cpu}").protocol.subjects[0].placement
    assert mapped is not None and mapped.device_map == {"model": 0, "lm_head": "cpu"}
    assert plain.protocol.subjects[0].placement is None
    rounded = subject(", weights: int8")
    assert len({one.sha256 for one in (plain, rounded, subject(", name: other"))}) == 3


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("device_map: balanced", "line 2: subjects.0.device_map: expected 'auto'"),
        ("max_memory: {cpu: 1GB}", "expected `device_map: auto` beside max_memory"),
        ("device_map: auto, weights: int8", "expected one device for a quantised model"),
        ("weights: int3", "line 2: subjects.0.weights: expected 'int8' or 'int4'"),
        ("name: Two Words", "line 2: subjects.0.name: expected"),
    ],
)
def test_a_mistake_in_where_a_model_lies_is_named(tmp_path: Path, said: str, message: str) -> None:
    text = GOOD.replace("[smollm2-135m-instruct]", f"[{{model: smollm2-135m-instruct, {said}}}]")
    with pytest.raises(ProtocolError, match=message):
        load_study(written(tmp_path, text))


def test_what_needs_gradients_of_weights_is_refused_of_rounded_ones(tmp_path: Path) -> None:
    text = Path("protocols/medical_map.yaml").read_text()
    text = text.replace(
        "[smollm2-135m-instruct,", "[{model: smollm2-135m-instruct, weights: int8},"
    )
    with pytest.raises(ProtocolError, match="subjects.0.weights: 'map' needs weights that can"):
        load_study(written(tmp_path, text))
    text = text[: text.index("hypotheses:")].replace(
        "rest: general", "rest: general, gradients: false"
    )
    assert load_study(written(tmp_path, text)).protocol.subjects[0].weights == "int8"


def test_one_model_under_two_names_is_two_subjects(tmp_path: Path) -> None:
    two = "[{model: smollm2-135m-instruct, name: one}, {model: smollm2-135m-instruct, name: two}]"
    text = GOOD.replace("[smollm2-135m-instruct]", two).replace(
        "  - id", "  - subject: two\n    id"
    )
    study = load_study(written(tmp_path, text))
    assert study.subjects_of(study.protocol.hypotheses[0]) == ["two"]


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


def test_an_identity_is_no_finding(tmp_path: Path) -> None:
    text = GOOD.replace("probe: {site: resid_post, label: category, item_folds: 2}",
                        "retention: {site: resid_post}")  # fmt: skip
    text = text.replace("decode.balanced_accuracy", "decode.retention")
    with pytest.raises(ProtocolError, match="line 14.*'retention' can be no finding, whatever it"):
        load_study(written(tmp_path, text))


ACTING = GOOD.replace(
    "probe: {site: resid_post, label: category, item_folds: 2}",
    "ablation: {site: resid_post, layers: [4, 8]}",
).replace("decode.balanced_accuracy", "decode.drop_refitted")
CONTROLS_OF_ACTING = """\
    controls:
      untrained_twin: {margin: 0.1}
      random_target: {margin: 0.1}
      split_half: {margin: 0.0}
"""


def acting(controls: str = CONTROLS_OF_ACTING) -> str:
    begin = ACTING[: ACTING.index("    controls:")]
    return begin.replace("at: {layer: 0}", "at: {layer: 4}") + controls


def test_what_was_done_is_claimed_with_controls_of_its_own(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, acting()))
    assert study.analyses["decode"].layers == (4, 8)
    for text, says in (
        (acting(CONTROLS_OF_ACTING.replace("random_target", "held_out_items")),
         "cannot be judged without 'random_target'; required are untrained_twin, random_target"),
        (ACTING.replace("layer: 0", "layer: 4"),
         "line 22: .*shuffled_labels: 'shuffled_labels' changes what is read"),
        (GOOD.replace("      split_half", "      random_target: {margin: 0.1}\n      split_half"),
         "'random_target' is of analyses that act on the subject, and this one does not"),
        (acting().replace("layer: 4", "layer: 5"),
         "hypotheses.0.at.layer: 'decode' does nothing at layer 5, but at 4, 8"),
        (acting().replace("  twins: 1", "  twins: 1\n  tokens: target_mean"),
         "scan.tokens: 'decode' acts on what it reads, one token of each text; scan with"),
    ):  # fmt: skip
        with pytest.raises(ProtocolError, match=says):
            load_study(written(tmp_path, text))


def test_layers_that_a_model_has_not_are_named_before_anything_is_done(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, acting()))
    study.check_layers("smollm2-135m-instruct", 30)
    with pytest.raises(ProtocolError, match=r"analyses.decode.ablation.layers: layer 8 cannot be"):
        study.check_layers("smollm2-135m-instruct", 10)


MADE = GOOD.replace(
    "subjects: [smollm2-135m-instruct]",
    """\
subjects:
  - smollm2-135m-instruct
  - model: doctor
    tuned: {of: smollm2-135m-instruct, stimuli: {set: tuning, only: {form: [taught]}}, rate: 1e-4}
  - {model: layman, sum: {of: smollm2-135m-instruct, add: {doctor: -1}}}""",
).replace("    measure:", "    subject: layman\n    measure:")


def test_subjects_are_made_of_others(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, MADE))
    lesson = study.lesson("doctor")
    assert lesson is not None and study.lesson("layman") is None
    assert len(lesson.stimuli) == 1762 and (lesson.rate, lesson.epochs) == (1e-4, 1)
    assert list(study.makings(["layman"])) == ["layman", "doctor"]
    assert study.makings(["smollm2-135m-instruct"]) == {}
    # What there was before this could be said is said as it was.
    plain = load_study(written(tmp_path, GOOD)).protocol.subjects[0]
    assert set(plain.model_dump()) == {"model", "revision", "dtype"}


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("of: smollm2-135m-instruct, add", "of: doktor, add",
         "line 6: .*sum.of: 'doktor' is no subject of this protocol, so nothing can be made of "
         "it; did you mean 'doctor'"),
        ("{doctor: -1}", "{nurse: -1}", "line 6: .*sum.add: 'nurse' is no subject of this"),
        ("{of: smollm2-135m-instruct, stimuli", "{of: layman, stimuli",
         "line 5: .*tuned: doctor is made of layman is made of doctor; begin with a model"),
        ("set: tuning, only: {form: [taught]}", "set: concepts",
         "line 5: .*stimuli: 'concepts' has no column 'answer', so there is nothing to be taught"),
        ("form: [taught]", "form: [law]", "line 5: .*'form' is nowhere 'law'"),
        ("rate: 1e-4", "dealt: ask", "line 5: .*dealt: 'tuning' has no column 'ask'; did you mean "
         "'asks'"),
        ("rate: 1e-4", "rate: 0", "line 5: .*rate: expected greater than 0, found 0"),
        ("model: doctor", "model: Doctor", "line 4: .*'Doctor' is made here: give it a name"),
        ("model: doctor", "model: gemma3-270m", "line 4: .*'gemma3-270m' is made here: give it a"),
        ("{model: layman,", "{model: layman, revision: main,",
         "line 6: .*revision: 'layman' is made here and has none; give it to 'smollm2"),
        ("{model: layman,", "{model: layman, tuned: {of: doctor, stimuli: tuning},",
         "line 6: .*sum: is made by `tuned` already"),
        ("{model: layman,", "{model: doctor,", "'doctor' stands twice; rename one"),
        ("{doctor: -1}", "{}", "line 6: .*add: expected at least one"),
    ],
)  # fmt: skip
def test_a_subject_that_cannot_be_made_is_named_with_the_mend(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in MADE
    with pytest.raises(ProtocolError, match=said):
        load_study(written(tmp_path, MADE.replace(old, new)))


QUICK = (
    GOOD.replace("[smollm2-135m-instruct]", "[smollm2-135m-instruct, a/2]")
    .replace("  - id: decodable", "  - subject: a/2\n    id: decodable")
    .replace("items: 4", "items: 20")
    + "quick: {subjects: [a/2], items: 4, twins: 0}\n"
)
ACTS = """\
  push: {steering: {site: resid_post, layers: [1], random: 6}}
  long: {scaling: {site: resid_post, layers: [1]}}
  alike: {universality: {site: resid_post}}
"""


def test_a_quick_look_is_another_protocol_without_findings(tmp_path: Path) -> None:
    text = QUICK.replace("twins: 0", "random: 2, without: [alike]")
    text = text.replace("hypotheses:\n", f"{ACTS}hypotheses:\n")
    other = text[text.index("  - subject") : text.index("quick:")]
    other = other.replace("a/2", "smollm2-135m-instruct").replace("decodable", "of-the-other")
    path = written(tmp_path, text.replace("quick:", f"{other}quick:"))
    whole, look = load_study(path), load_study(path, quick=True)
    assert not whole.protocol.exploratory and len(whole.protocol.hypotheses) == 2
    assert (look.protocol.study, look.protocol.exploratory) == ("small_quick", True)
    assert look.protocol.title == "A quick look: small"
    assert [one.called for one in look.protocol.subjects] == ["a/2"]
    assert len(look.stimuli) == 10 * 4 * 2 and len(whole.stimuli) == 10 * 20 * 2
    assert [one.id for one in look.protocol.hypotheses] == ["decodable"]
    for name in ("push", "long"):  # one says how many, the other has as many for its own
        dealings = [asdict(study.analyses[name])["random"] for study in (whole, look)]
        assert dealings == [6, 2]
    assert set(look.analyses) == {"decode", "push", "long"}
    # What is kept of it is a protocol like any other, and says the same.
    again = load_study(written(tmp_path, look.text))
    assert again.protocol == look.protocol


@pytest.mark.parametrize(
    ("was", "now", "quick", "message"),
    [
        ("quick: ", "# ", True, "does not say what a quick look is content with; add a line such"),
        ("[a/2], items", "[a/3], items", False, "quick.subjects.0: there is no 'a/3'; did you"),
        ("twins: 0}", "without: [decod]}", False, "quick.without.0: there is no 'decod'; did you"),
        ("twins: 0}", "without: [decode]}", True, "quick: leaves out all that is claimed"),
        ("twins: 0}", "twins: 0}", True, "line 26: .*no twin is scanned; set `twins`"),
        ("items: 4, twins", "itms: 4, twins", False, "quick.itms: unknown key"),
    ],
)
def test_mistakes_about_a_quick_look_are_named(
    tmp_path: Path, was: str, now: str, quick: bool, message: str
) -> None:
    with pytest.raises(ProtocolError, match=message):
        load_study(written(tmp_path, QUICK.replace(was, now)), quick=quick)


def test_quick_looks_of_shipped_protocols_are_good() -> None:
    quick = [path for path in sorted(Path("protocols").glob("*.yaml"))
             if "\nquick: " in path.read_text()]  # fmt: skip
    assert Path("protocols/direction_not_region.yaml") in quick
    for path in quick:
        look, whole = load_study(path, quick=True), load_study(path)
        assert look.protocol.exploratory
        assert len(look.stimuli) < len(whole.stimuli)
