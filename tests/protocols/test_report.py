"""The report of a small study that was made up: one hypothesis for each verdict."""

import dataclasses
import gzip
import json
import re
from base64 import b64decode
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from plotly.offline import get_plotlyjs

from protocols.report import figures, methods, render, words
from protocols.report.cards import _world_words
from protocols.report.page import _device, _eta_squared
from protocols.schema import ScanSpec, Study, load_study
from scanner.volume import PROVENANCE
from stimuli import StimulusSet, load
from verification.base import Published

STATUSES = ("supported", "null", "inconclusive", "rejected", "invalid")
LAYERS = 4
INLINE = ("a", "b", "code", "mark", "script", "span", "sup")
PROTOCOL = """
study: made-up
title: A made-up study
subjects: [{subjects}]
stimuli: words.csv
scan: {{sites: [resid_post], twins: 2}}
analyses:
  decode: {{probe: {{site: resid_post, item_folds: 2}}}}
  prefer: {{selectivity: {{site: resid_post, top: 2, splits: 3}}}}
hypotheses: {hypotheses}
"""


@dataclass(frozen=True)
class MadeUp:
    """A study folder, with what `render` is given."""

    study: Study
    summary: dict[str, Any]
    home: Path
    root: Path

    @property
    def page(self) -> str:
        return render(self.study, self.summary, self.home, self.root)


class Parts(HTMLParser):
    """The tags of a page with their attributes, and its text without scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._silent = 0
        self.feed(page)
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.words.append(" " * (tag not in INLINE))
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.words.append(" " * (tag not in INLINE))
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words.append(data)


def hypothesis(status: str, subject: str) -> dict[str, Any]:
    return {
        "id": f"is-{status}",
        "claim": f"A claim that <script>alert('{status}')</script> is {status}.",
        "rationale": f"It was thought that it would be {status}.",
        "measure": "decode.balanced_accuracy",
        "at": {"layer": "selected" if status in ("supported", "invalid") else 2},
        "expect": "greater",
        "than": "chance",
        "smallest_effect": 0.125,
        "alpha": 0.02,
        "subject": subject,
        "controls": {
            "untrained_twin": {"margin": 0.1},
            "shuffled_labels": {"permutations": 99},
            "surface_only": {"margin": 0.05},
            "split_half": {"margin": 0.1},
        },
    }


def verdict(place: int, status: str, claim: str, exploratory: bool) -> dict[str, Any]:
    measured = status != "invalid"
    estimate = 0.7531 - 0.1 * place
    checks = [
        {
            "control": name,
            "kind": "replication" if name == "split_half" else "null",
            "passed": not (status == "rejected" and name == "surface_only"),
            "estimate": 0.0123 * place,
            "interval": [0.1, 0.2],
            "margin": 0.05,
            "reason": f"what {name} said of {status} & its margin",
        }
        for name in ("untrained_twin", "shuffled_labels", "surface_only", "split_half")
    ]
    return {
        "id": f"is-{status}",
        "claim": claim,
        "status": status,
        "reason": f"a reason to call it {status}",
        "measure": "decode.balanced_accuracy",
        "layer": 2 if measured else "selected",
        "estimate": estimate if measured else None,
        "interval": [estimate - 0.0417, estimate + 0.3619] if measured else [None, None],
        "reference": 0.5 if measured else None,
        "effect": estimate - 0.5 if measured else None,
        "smallest_effect": 0.125,
        "alpha": 0.02,
        "p": 0.0421 if measured else None,
        "p_holm": 0.0842 if measured else None,
        "bayes_factor": 0.0123 if measured else None,
        "exploratory": exploratory,
        "items": 8,
        "items_needed": 4711 if status == "inconclusive" else None,
        "registration": f"{place}" * 64,
        "checks": checks if measured else [],
        "members": [],
        "curve": None,
        "volumes": [],
    }


def world(measured: bool) -> xr.Dataset:
    if not measured:
        return xr.Dataset()
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "observed": ("layer", np.linspace(0.5, 0.7, LAYERS)),
            "half_samples": (("half_sample", "layer"), rng.uniform(0.5, 0.7, (16, LAYERS))),
            "untrained_twin": (("untrained_twin_draw", "layer"), np.full((2, LAYERS), 0.51)),
            "shuffled_labels": (("shuffled_labels_draw", "layer"), np.full((3, LAYERS), 0.49)),
            "surface_only": ("layer", np.full(LAYERS, 0.52)),
        },
        coords={"layer": np.arange(LAYERS)},
        attrs={"chance": 0.5, "scale": 1.0, "freedom": 6},
    )


def measures() -> dict[str, xr.Dataset]:
    coords = {"layer": np.arange(LAYERS), "category": ["plants", "tools"]}
    both = (("layer", "category"), np.tile([0.25, 0.75], (LAYERS, 1)))
    line = np.linspace(0.5, 0.8, LAYERS)
    probe = {
        "balanced_accuracy": ("layer", line, {"chance": 0.5}),
        "auc": ("layer", line, {"chance": 0.5}),
        "recall": both,
    }
    prefer = {
        "overlap": ("layer", line, {"chance": 0.1}),
        "profile": ("layer", line, {"chance": 0.0}),
        "overlap_by_category": both,
        "profile_by_category": both,
    }
    return {
        "decode": xr.Dataset(probe, coords=coords),
        "prefer": xr.Dataset(prefer, coords=coords),
    }


def write_volume(path: Path, subject: str, stimuli: StimulusSet) -> None:
    table = stimuli.table.assign(n_tokens=1)
    labels = {
        str(name): (
            "stimulus",
            column.to_numpy(dtype=np.dtypes.StringDType())
            if pd.api.types.is_string_dtype(column)
            else column.to_numpy(),
        )
        for name, column in table.items()
    }
    attrs = {key: f"the {key} of {subject}" for key in PROVENANCE} | {
        "subject": subject,
        "environment": json.dumps({"python": "3.11", "torch": "2.0"}),
        "identities": json.dumps({"blocks_chain": 0.0, "alone_equals_batched": 2e-7}),
    }
    xr.Dataset(
        {
            "resid_post": (
                ("stimulus", "layer", "unit"),
                np.zeros((len(table), LAYERS, 3), np.float32),
            )
        },
        coords={**labels, "layer": np.arange(LAYERS), "unit": np.arange(3)},
        attrs=attrs,
    ).to_zarr(path, zarr_format=3, consolidated=False)


def made_up(
    root: Path,
    statuses: tuple[str, ...] = STATUSES,
    subjects: tuple[str, ...] = ("tiny",),
    exploratory: tuple[str, ...] = ("null",),
) -> MadeUp:
    home = root / "made-up"
    for folder in ("evidence", "measures"):
        (home / folder).mkdir(parents=True)
    kinds = {"plants": ["fern", "moss", "oak", "reed"], "tools": ["saw", "file", "awl", "plane"]}
    pd.DataFrame(
        {"text": f"{frame} {item}.", "item": item, "frame": frame, "category": category}
        for frame in ("See the", "Name a")
        for category, items in kinds.items()
        for item in items
    ).to_csv(root / "words.csv", index=False)
    stimuli = load(str(root / "words.csv"))
    asked = [hypothesis(status, subjects[-1]) for status in statuses]
    (home / "protocol.yaml").write_text(
        PROTOCOL.format(subjects=", ".join(subjects), hypotheses=json.dumps(asked))
    )
    recordings = []
    for model in subjects:
        for seed in (None, 0, 1):
            name = model if seed is None else f"{model}.twin{seed}"
            write_volume(root / f"volumes/{name}--00.zarr", name, stimuli)
            recordings.append(
                {"model": model, "subject": name, "seed": seed,
                 "path": f"volumes/{name}--00.zarr", "sha256": f"digest-of-{name}"}
            )  # fmt: skip
            for analysis, found in measures().items():
                found.to_netcdf(home / f"measures/{analysis}--{name}.nc", engine="h5netcdf")
    for status in statuses:
        path = home / f"evidence/is-{status}.nc"
        world(status != "invalid").to_netcdf(path, engine="h5netcdf")
    study = load_study(home / "protocol.yaml", stimuli=stimuli)
    summary = {
        "study": "made-up",
        "protocol_sha256": study.sha256,
        "stimuli_sha256": stimuli.digest,
        "ledger_head": "ab" * 32,
        "code_version": "0.0.0+made.up",
        "environment": {"python": "3.11", "torch": "2.1"},
        "recordings": recordings,
        "effects": [],
        "verdicts": [
            verdict(place, status, asked[place]["claim"], status in exploratory)
            for place, status in enumerate(statuses)
        ],
        "dropped": [],
    }
    return MadeUp(study, summary, home, root)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    return made_up(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def page(whole: MadeUp) -> str:
    return whole.page


@pytest.fixture(scope="module")
def parts(page: str) -> Parts:
    return Parts(page)


def section(page: str, status: str) -> str:
    """The card of a hypothesis, as text."""
    start = page.index(f'<section class="hypothesis" id="is-{status}">')
    return Parts(page[start : page.index("</section>", start)]).text


def test_no_zero_is_negative():
    assert words.number(-0.0001) == "0.000"


def test_page_asks_nothing_of_a_network(parts: Parts) -> None:
    asked = [
        value
        for tag, attrs in parts.tags
        for name, value in attrs.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert asked and all(value is not None and value.startswith("#") for value in asked)
    assert "link" not in {tag for tag, _ in parts.tags}
    policy = next(a["content"] for t, a in parts.tags if "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none'")


def test_styles_load_nothing(page: str) -> None:
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style


def test_plotly_is_carried_once_and_packed(page: str) -> None:
    (carried,) = re.findall(r'<script type="application/gzip" id="plotly">([^<]*)</script>', page)
    assert gzip.decompress(b64decode(carried)).decode() == get_plotlyjs()
    assert "* plotly.js v" not in page and len(page) < 3_000_000


def test_same_results_give_the_same_bytes(whole: MadeUp, page: str) -> None:
    assert whole.page == page


def test_every_anchor_of_the_contents_is_there(parts: Parts) -> None:
    ids = [attrs["id"] for _, attrs in parts.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in parts.tags:
        if "href" in attrs:
            assert str(attrs["href"]).removeprefix("#") in ids


def test_hypotheses_stand_in_the_order_of_registration_and_in_equal_cards(page: str) -> None:
    cards = re.findall(r'<section class="([^"]*)" id="is-(\w+)">', page)
    assert cards == [("hypothesis", status) for status in STATUSES]
    for status in STATUSES:
        for part in ("Estimate", "Interval (96%)", "Controls", "How this was judged"):
            assert part in section(page, status)


@pytest.mark.parametrize("status", STATUSES)
def test_card_shows_what_the_summary_says(whole: MadeUp, page: str, status: str) -> None:
    text = section(page, status)
    one = next(v for v in whole.summary["verdicts"] if v["status"] == status)
    assert f"A reason to call it {status}." in text
    assert f"It was thought that it would be {status}." in text
    assert words.number(one["estimate"]) in text
    assert words.between(one["interval"]) in text
    assert words.number(one["effect"]) in text
    assert words.p_value(one["p_holm"]) in text
    for check in one["checks"]:
        assert f"{words.capital(check['reason'])}." in text
        assert words.number(check["estimate"]) in text


def test_overview_shows_every_estimate(whole: MadeUp, page: str) -> None:
    table = Parts(page[page.index('<table class="overview">') : page.index("</table>")]).text
    for one in whole.summary["verdicts"]:
        for shown in (one["status"], words.number(one["estimate"]), words.between(one["interval"])):
            assert shown in table


def test_what_could_not_be_computed_is_said_and_not_drawn(page: str) -> None:
    text = section(page, "invalid")
    assert words.NOT_COMPUTED in text
    assert "Nothing could be measured" in text
    assert "none was selected" in text
    assert 'id="figure-is-invalid"' not in page and 'id="figure-is-null"' in page


@pytest.mark.parametrize(
    ("high", "said"), [(1.04, "passes the end of the scale"), (1.0, "cut at the end of the scale")]
)
def test_interval_at_the_end_of_the_scale_is_explained(
    tmp_path: Path, high: float, said: str
) -> None:
    study = made_up(tmp_path, ("rejected",))
    study.summary["verdicts"][0]["interval"] = [0.41, high]
    assert said in section(study.page, "rejected")


def test_inconclusive_says_how_many_items_would_decide(page: str) -> None:
    assert "4711" in section(page, "inconclusive")
    assert "4711" not in section(page, "supported")


def test_only_the_exploratory_are_marked_so(page: str) -> None:
    assert "exploratory: not a finding" in section(page, "null")
    assert "not before all of its data" in section(page, "null")
    assert "p, not adjusted" in section(page, "null")
    assert "exploratory" not in section(page, "supported").lower()


def test_claims_are_escaped(page: str) -> None:
    assert "<script>alert" not in page
    assert "<script>alert('null')</script>" in unescape(section(page, "null"))


def test_lead_counts_verdicts_and_findings(parts: Parts) -> None:
    assert (
        "Of five hypotheses, one is supported, one is null, one is inconclusive, one is rejected "
        "and one is invalid." in parts.text
    )
    assert "One was not registered before all of the data were recorded" in parts.text
    assert "That leaves one confirmatory finding." in parts.text


def test_exploratory_support_is_no_finding(tmp_path: Path) -> None:
    text = Parts(made_up(tmp_path, ("supported",), exploratory=("supported",)).page).text
    assert "That leaves no confirmatory findings." in text
    assert "Holm 1979" not in text


def test_study_without_hypotheses(tmp_path: Path) -> None:
    text = Parts(made_up(tmp_path, ()).page).text
    assert "No hypothesis was registered" in text
    assert "Recall by category and layer" in text
    assert "Wu" not in text


def test_several_subjects_are_all_shown(tmp_path: Path) -> None:
    page = made_up(tmp_path, ("supported",), ("tiny", "other")).page
    text = Parts(page).text
    assert "probe of tiny" in text and "probe of other" in text
    assert "tokens of tiny" in text and "tokens of other" in text
    assert "digest-of-other.twin1" in text
    assert "Subject other" in section(page, "supported")


def test_a_specification_curve_stands_beside_its_verdict_with_its_words_and_numbers(
    tmp_path: Path,
) -> None:
    made = made_up(tmp_path, ("supported", "null"))
    rows = [
        {"settings": {"penalty": 10.0, "penalties": [1, 2]}, "registered": False, "effect": 0.21,
         "interval": [0.1, 0.32], "p": 0.0007, "reason": ""},
        {"settings": {"penalty": 1.0, "penalties": []}, "registered": True, "effect": 0.25,
         "interval": [0.11, 0.39], "p": 0.0123, "reason": ""},
        {"settings": {"penalty": 2.0, "penalties": []}, "registered": False, "effect": None,
         "interval": [None, None], "p": None, "reason": "could not be computed: too few"},
    ]  # fmt: skip
    curve = {"specifications": rows, "median": 0.23, "same_sign": 2, "significant": 1, "p": 0.04,
             "dealings": 99}  # fmt: skip
    made.summary["verdicts"][0]["curve"] = curve
    shown = section(made.page, "supported")
    assert "Under other settings" in shown
    assert "The effect under 3 specifications (Simonsohn et al. 2020)" in shown
    assert "2 of 2 lie on the expected side, 1 significantly" in shown
    assert "their median is 0.230. A median as large is found with p = 0.040 where labels" in shown
    assert "1 of 3 could not be computed: too few (penalty 2.0, penalties" in shown
    assert "penalty 10.0, penalties 1 and 2" in shown and "0.210" in shown
    assert "Under other settings" not in section(made.page, "null")
    absent = made_up(tmp_path / "absent", ("null",))
    absent.summary["verdicts"][0]["curve"] = {**curve, "dealings": 0, "p": None}
    assert "No joint test: labels dealt out anew are no world" in section(absent.page, "null")


def test_what_others_published_stands_beside_and_changes_no_registration(tmp_path: Path) -> None:
    made = made_up(tmp_path, ("supported", "null"))
    first, second = made.study.protocol.hypotheses
    told = Published(found="0.97 in <b>another</b> model", by="Nobody et al. 2026, table 3")
    protocol = made.study.protocol.model_copy(
        update={"hypotheses": [first.model_copy(update={"published": told}), second]}
    )
    beside = dataclasses.replace(made.study, protocol=protocol)
    assert beside.sha256 == made.study.sha256
    assert "Published" not in Parts(made.page).text
    shown = dataclasses.replace(made, study=beside).page
    assert "<b>another</b>" not in shown
    overview = Parts(shown[: shown.index('id="hypotheses"')]).text
    assert overview.count("0.97 in <b>another</b> model") == 1
    assert "Nobody et al. 2026, table 3" in section(shown, "supported")
    assert "Published" not in section(shown, "null")


def test_twins_of_two_models_are_pairs() -> None:
    assert _world_words("untrained_twin", 6, True) == "Thin lines: 6 pairs with an untrained twin."
    assert _world_words("untrained_twin", 2, False) == "Thin lines: 2 untrained twins."


def test_descriptive_part_says_that_it_was_not_judged(parts: Parts) -> None:
    assert "Descriptive, all items, not judged." in parts.text
    for name in ("Recall", "Overlap", "Profile"):
        assert f"{name} by category and layer" in parts.text


def test_stimuli_are_counted_shown_and_balanced(page: str, parts: Parts) -> None:
    assert "16 stimuli, 8 items of 2 categories in 2 frames. The whole set was read." in parts.text
    assert len(re.findall("<mark>", page)) == 3
    # Characters: plants 4, 4, 3, 4 and tools 3, 4, 3, 5 have the same mean.
    assert "eta squared 0.000" in parts.text


def test_eta_squared_of_groups() -> None:
    values = pd.Series([0.0, 2.0, 4.0, 6.0])
    means, counts = pd.Series([1.0, 5.0]), pd.Series([2, 2])
    assert _eta_squared(values, means, counts) == pytest.approx(16 / 20)
    assert np.isnan(_eta_squared(pd.Series([1.0, 1.0]), pd.Series([1.0]), pd.Series([2])))


def test_methods_name_only_the_sources_that_were_used(parts: Parts) -> None:
    for source in ("Alain", "Spearman", "Brown", "Wu", "Shao", "Holm", "Phipson", "Zhang"):
        assert f"{source}, " in parts.text
    assert "CC0" in parts.text


def told(scan: dict[str, Any], **attrs: Any) -> str:
    """What the methods say of a scan of two subjects with these attributes."""
    sites = {
        "resid_post": ("layer", "unit"), "z": ("layer", "head", "head_unit"),
        "attn_probs": ("layer", "head"), "embeddings": ("unit",), "logits": ("rank",),
    }  # fmt: skip
    sizes = {"layer": 3, "unit": 32, "head": 4, "head_unit": 8, "rank": 1}
    given = {"dtype": "float32", "refused": "{}"} | attrs
    volume = xr.Dataset(
        {
            kind: (("stimulus", *dims), np.zeros([2, *(sizes[dim] for dim in dims)], np.float32))
            for kind, dims in sites.items()
        },
        attrs={"identities": json.dumps({"parts_sum": 2e-7, "alone_equals_shared": 3e-7})} | given,
    )
    volumes = {"tiny": volume, "tiny.twin0": volume.copy()}
    spec = ScanSpec.model_validate({"sites": ["resid_post"]} | scan)
    said = [methods._recorded(spec, volumes), methods._phantoms(volumes)]
    said.append(methods._identities(volumes))
    return " ".join([*said, methods._sharing(volumes)])


@pytest.mark.parametrize(
    ("scan", "shown"),
    [
        ({}, "resid_post (32 units) in all 3 layers, at the last token of the target."),
        ({"tokens": "target_mean"}, "layers, averaged over the tokens of the target."),
        ({"tokens": "last"}, "at the last token of each text."),
        ({"tokens": "last", "chat": {}}, "at the last token of each conversation."),
        ({"tokens": "mean"}, "averaged over the tokens of each text but the first."),
        ({"tokens": "all"}, "at every token of each text."),
        ({"tokens": [0]}, "at position 0 of each text (from 0; below it from the end)."),
        ({"tokens": [0, 2, -1]}, "at positions 0, 2 and -1 of each text"),
        ({"sites": ["z"]}, "Recorded was z (4 heads x 8 units) in all 3 layers, at"),
        ({"sites": ["embeddings"]}, "Recorded was embeddings (32 units), at the last token of"),
        (
            {"sites": ["z", "attn_probs", "logits"]},
            "Recorded were z (4 heads x 8 units) and attn_probs (4 heads, for each token that is "
            "seen) in all 3 layers, and logits (1 highest value), at the last token of the target.",
        ),
    ],
)
def test_methods_say_what_was_recorded_and_where(scan: dict[str, Any], shown: str) -> None:
    assert shown in told(scan)


def test_methods_tell_of_shared_tokens_only_where_they_were() -> None:
    counts = {"tokens_unique": 10, "tokens_read": 30}
    shared = told({}, sharing=methods.SHARED, **counts)
    assert "computed once (10 of 30 tokens); a prompt that shares its beginning" in shared
    assert "differed from the prompt alone by at most 3.0e-07." in shared
    assert "computed once" not in told({}, sharing="not asked for", **counts)
    assert "computed once" not in told({})


def test_methods_say_what_the_device_was_found_to_be() -> None:
    found = {"verdict": "passed", "largest_error": 3.9e-6, "bound": 1e-4, "site": "z of llama"}
    passed = told({}, phantom=json.dumps(found))
    assert "off by at most 3.9e-06 of a site's scale, where 0.0001 is allowed." in passed
    fault = "z in layer 0 of llama (alone) is off by 0.3 of its scale where 0.0001 is allowed"
    accepted = {**found, "verdict": "failed, and accepted", "largest_error": 0.3, "faults": [fault]}
    shown = told({}, phantom=json.dumps(accepted))
    assert f"The device failed its phantom ({fault}), and was recorded on nevertheless" in shown
    assert "phantom" not in told({})
    facts = _device({"phantom": accepted, "off_from_cpu": {"z": [0.3]}})
    assert dict(facts)["phantom"].startswith("failed, and accepted: off from float64 by 0.3 of a")
    assert dict(facts)["phantom"].endswith(fault)
    assert _device({}) == []


def test_methods_name_only_identities_that_hold() -> None:
    assert "to satisfy one identity of its sites (parts sum); the largest" in told({})
    failed = json.dumps({"mlp_out": "the identity 'parts_sum' fails by 0.3 where 0.0001 is allo"})
    assert "to satisfy" not in told({}, refused=failed)


def test_provenance_is_complete(whole: MadeUp, parts: Parts) -> None:
    for key in ("protocol_sha256", "stimuli_sha256", "ledger_head", "code_version"):
        assert whole.summary[key] in parts.text
    for one in whole.summary["recordings"]:
        for shown in (one["subject"], one["path"], one["sha256"]):
            assert shown in parts.text
        for key in ("weights_sha256", "tokenizer_sha256", "revision", "time"):
            assert f"the {key} of {one['subject']}" in parts.text
    assert "alone equals batched 2.0e-07" in parts.text
    assert "as above but for torch 2.0" in parts.text
    assert "scan verify results/made-up" in parts.text
    assert "item_folds: 2" in parts.text


def judged(**changed: Any) -> figures.Judged:
    given = {
        "layer": 2, "estimate": 0.63, "interval": (0.55, 1.06), "reference": 0.5, "direction": 1,
        "smallest_effect": 0.1, "least": 0.0, "greatest": 1.0,
    }  # fmt: skip
    return figures.Judged(**{**given, **changed})


def draw(**changed: Any) -> dict[str, Any]:
    figure = figures.by_layer(
        world(True), measure="balanced_accuracy", level=0.96, judged=judged(**changed)
    )
    return json.loads(figure.to_json() or "")


def test_band_is_the_interval_of_the_gate() -> None:
    halves = np.array([[0.1, 0.5], [0.3, 0.5]])
    evidence = xr.Dataset(
        {"observed": ("layer", [0.2, 0.5]), "half_samples": (("half_sample", "layer"), halves)},
        attrs={"scale": 4.0, "freedom": 1},
    )
    low, high = figures.band(evidence, level=0.5)
    # Quartiles of t with one degree of freedom are at 1; the standard error is sqrt(4 * 0.02).
    assert high - 0.2 == pytest.approx([np.sqrt(0.08), 0.3])
    assert low == pytest.approx([0.2 - np.sqrt(0.08), 0.5])


def test_a_single_layer_is_drawn_as_points_with_their_intervals() -> None:
    values = xr.DataArray(
        [[0.3, 0.5]], dims=("layer", "reference"),
        coords={"layer": [0], "reference": ["observed", "rewired"]},
    )  # fmt: skip
    figure = figures.intervals(values, values - 0.1, values + 0.2, [])
    points = list(figure.data)
    assert [(point.x[0], point.y[0], point.mode) for point in points] == [
        ("observed", 0.3, "markers"), ("rewired", 0.5, "markers")
    ]  # fmt: skip
    for point in points:
        assert point.error_y.array[0] == pytest.approx(0.2)
        assert point.error_y.arrayminus[0] == pytest.approx(0.1)


def test_a_circle_has_a_bow_for_each_strong_pair_and_a_point_for_each_node() -> None:
    strength = np.zeros((20, 20))
    for one, other, value in ((0, 10, 0.9), (3, 4, 0.8), (5, 15, -0.95)):
        strength[one, other] = strength[other, one] = value
    names = [f"head {node}" for node in range(20)]
    values = xr.DataArray(
        strength, dims=("node", "other_node"),
        coords={"node": names, "other_node": names, "module": ("node", [0] * 10 + [1] * 9 + [2])},
    )  # fmt: skip
    together, against, *modules = figures.circle(values).data
    assert together.name == "2 strongest, together"
    assert against.name == "1 strongest, against each other"
    # The ends of the only bow are two points that face each other.
    ends = np.array([[line[0], line[-2]] for line in (against.x, against.y)], dtype=float)
    np.testing.assert_allclose(ends[:, 0], -ends[:, 1], atol=1e-3)
    assert [len(module.x) for module in modules] == [10, 9, 1]
    assert modules[2].text == ("head 19",)
    places = np.array([[*module.x] for module in modules[:1]] + [[*modules[0].y]], dtype=float)
    np.testing.assert_allclose(np.square(places).sum(0), 1, atol=2e-3)


def test_interval_beyond_the_scale_is_drawn_whole() -> None:
    shown = draw()
    (point,) = [trace for trace in shown["data"] if trace["name"] == "judged: layer 2"]
    assert point["x"] == [2] and point["y"] == [0.63]
    assert point["error_y"]["array"] == [pytest.approx(0.43)]
    low, high = shown["layout"]["yaxis"]["range"]
    assert low < 0 < 1.06 < high


def test_every_world_is_drawn_and_labelled() -> None:
    shown = draw()
    names = [trace["name"] for trace in shown["data"]]
    assert names.count("untrained twins (2)") == 2
    assert names.count("shuffled labels (3)") == 4  # and their range
    labels = [a["text"] for a in shown["layout"]["annotations"] if a["name"] == "label"]
    for name in ("untrained twins (2)", "surface only", "chance, reference 0.5"):
        assert name in labels and name in names


def test_labels_keep_apart_and_their_order() -> None:
    shown = draw()
    low, high = shown["layout"]["yaxis"]["range"]
    height = figures.HEIGHT - figures.TOP - figures.BOTTOM
    labels = [a for a in shown["layout"]["annotations"] if a["name"] == "label"]
    places = [a["y"] * height / (high - low) - a["ay"] for a in labels]
    assert len(places) == 6
    assert np.diff(places).min() >= figures.LABEL_GAP - 0.2


def test_claim_of_less_has_its_ground_below_the_reference() -> None:
    shown = draw(direction=-1, reference=0.25)
    (ground,) = [shape for shape in shown["layout"]["shapes"] if shape["type"] == "rect"]
    assert (ground["y0"], ground["y1"]) == (pytest.approx(0.15), 0.25)


def test_reduction_over_layers_stands_beside_them() -> None:
    shown = draw(layer="mean")
    (point,) = [trace for trace in shown["data"] if trace["name"] == "judged: mean over layers"]
    assert point["x"][0] > LAYERS - 1


def test_map_has_the_strongest_category_on_top() -> None:
    shown = json.loads(
        figures.by_category(measures()["decode"]["recall"], name="recall").to_json() or ""
    )
    assert shown["data"][0]["y"] == ["plants", "tools"]
    assert shown["data"][0]["z"][1] == [0.75] * LAYERS


def test_categories_that_are_close_stand_side_by_side_and_the_diagonal_falls() -> None:
    names = ["cats", "cars", "dogs", "vans"]
    apart = np.array([[0.2, 9, 1, 8], [9, 0.1, 8, 2], [1, 8, 0.3, 9], [8, 2, 9, np.nan]])
    values = xr.DataArray(
        apart, dims=("category", "other_category"),
        coords={"category": names, "other_category": names},
    )  # fmt: skip
    shown = json.loads(figures.apart(values, name="mean distance").to_json() or "")
    map_ = shown["data"][0]
    assert map_["x"] == map_["y"][::-1]
    places = {name: place for place, name in enumerate(map_["x"])}
    assert abs(places["cats"] - places["dogs"]) == abs(places["cars"] - places["vans"]) == 1
    assert map_["z"][3 - places["cats"]][places["dogs"]] == 1
    assert map_["z"][3 - places["vans"]][places["vans"]] is None


def test_what_is_described_by_layer_stands_beside_its_twins() -> None:
    values, without, twin = (
        xr.DataArray(row, dims="layer", coords={"layer": range(3)})
        for row in ([1.0, np.nan, 3], [0.5, 1, 2], [0.1, 0.1, 0.2])
    )
    shown = json.loads(
        figures.curve(values, beside={"without outliers": without}, twins=[twin]).to_json() or ""
    )
    assert [trace["name"] for trace in shown["data"]] == [
        "untrained twins", "trained", "without outliers"
    ]  # fmt: skip
    assert shown["data"][1]["y"] == [1, None, 3]
    alone = json.loads(figures.curve(values, beside={}, twins=[]).to_json() or "")
    assert [trace["name"] for trace in alone["data"]] == ["trained"]


@pytest.mark.parametrize(("layers", "step"), [(4, 1), (12, 1), (13, 2), (30, 5), (80, 10)])
def test_layers_are_whole_numbers_on_the_axis(layers: int, step: int) -> None:
    assert figures.layer_step(layers) == step


@pytest.mark.parametrize(
    ("p", "shown"), [(None, "not computed"), (1e-9, "< 0.001"), (0.0123, "0.012"), (1.0, "> 0.999")]
)
def test_p_values_are_not_shown_finer_than_they_are(p: float | None, shown: str) -> None:
    assert words.p_value(p) == shown
