"""`docs/sites.md` says what the code says: its tables are compared, its examples are run."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from scanner import Recording, identities, open_volume, record
from scanner.aliases import ALIASES, CONVENTIONS, REFUSALS
from scanner.identities import TOLERANCE
from scanner.interventions import ACTIONS
from scanner.reading import read
from scanner.sites import KINDS, MEANINGS
from scanner.structure import EXACT

PAGE = Path("docs/sites.md").read_text()
# The third column of the table of identities.
ALLOWED = {"0": 0.0, "one pass": EXACT[torch.bfloat16], "two passes": TOLERANCE["bfloat16"]}


def table(header: str, rows: list[str]) -> str:
    """A table as it stands in the page."""
    return "\n".join([header, re.sub(r"[^|]+", "---", header), *rows])


def kinds() -> str:
    rows = [f"| `{k}` | {' x '.join(m.dims)} | {m.text} |" for k, m in MEANINGS.items()]
    return table("| site | dimensions | what it holds |", rows)


def tolerances() -> str:
    rows = [f"| {d} | {EXACT[getattr(torch, d)]:g} | {TOLERANCE[d]:g} |" for d in TOLERANCE]
    return table("| dtype | one pass | two passes |", rows)


def aliases() -> str:
    rows = [
        f"| {origin} | {_names(group)} | `{kind}` | {note} |"
        for (origin, kind, note), group in _alike(
            (*ALIASES, *CONVENTIONS), lambda row: (row.origin, row.kind, row.note)
        )
    ]
    return table("| whose | name | here | beware |", rows)


def refusals() -> str:
    rows = [
        f"| {_names(group)} | {reason} | {f'`{nearest}`' if nearest else ''} |"
        for (reason, nearest), group in _alike(REFUSALS, lambda row: (row.reason, row.nearest))
    ]
    return table("| name | why not | nearest |", rows)


def _alike(rows, key):
    """Rows that say the same of several names, in the order of the first."""
    groups: dict = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups.items()


def _names(rows) -> str:
    return ", ".join(f"`{row.name.replace('{layer}', 'L')}`" for row in rows)


def section(title: str) -> str:
    """The part of the page under a heading."""
    start = PAGE.index(f"## {title}\n")
    end = PAGE.find("\n## ", start)
    return PAGE[start : end if end > 0 else None]


@pytest.mark.parametrize("made", [kinds, tolerances, aliases, refusals])
def test_a_table_of_the_page_is_what_the_code_says(made) -> None:
    assert made() in PAGE, f"docs/sites.md should hold:\n{made()}"


def test_the_table_of_identities_is_what_is_proved(tiny_model, monkeypatch) -> None:
    proved: dict[str, float] = {}
    hold = identities._Prover._hold

    def noted(self, name, kinds, deviation, allowed=None):
        proved[name] = self.exact if allowed is None else allowed
        hold(self, name, kinds, deviation, allowed)

    monkeypatch.setattr(identities._Prover, "_hold", noted)
    proof = tiny_model("llama", dtype="bfloat16").proof
    proved |= {name: TOLERANCE["bfloat16"] for name in proof.deviations if name not in proved}
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\w ]+) \|$", section("What is proved"), re.M)
    assert {name: ALLOWED[allowed] for name, allowed in rows} == proved


def test_every_setting_of_tokens_and_every_action_is_told() -> None:
    tokens = re.findall(r"^\| `(\w+)` \|", section("Which tokens"), re.M)
    assert tokens == ["target", "target_mean", "last", "mean", "all"]
    told = section("Acting on sites")
    assert all(f"`{action}`" in told for action in ACTIONS)


def test_every_attribute_of_a_variable_is_told(tiny_model, toy_stimuli, tmp_path) -> None:
    model = tiny_model("llama")
    volume = open_volume(_recorded(model, toy_stimuli, tmp_path, ("resid_mid",), "last"))
    told = re.findall(r"^\| `(\w+)` \|", section("What a volume says of a site"), re.M)
    assert set(told) == set(volume["resid_mid"].attrs)


@pytest.mark.parametrize(
    ("family", "lacks"),
    [
        ("llama", {"router"}),
        ("gpt_neox", {"resid_mid", "router"}),
        ("falcon", {"resid_mid", "router"}),
        ("mixtral", {"mlp_pre", "mlp_act"}),
        ("gpt_oss", {"mlp_pre", "mlp_act"}),
        ("mamba", set(KINDS) - {"embeddings", "resid_pre", "resid_post", "final_norm", "logits"}),
    ],
)
def test_families_lack_what_the_page_says(tiny_model, family: str, lacks: set[str]) -> None:
    assert set(tiny_model(family).structure.refused) == lacks


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE, re.S)


def test_the_examples_rebuild_attention_and_texts(tiny_model, toy_stimuli, tmp_path) -> None:
    model = tiny_model("llama")
    kinds = ("attn_probs", "resid_post")
    path = _recorded(model, toy_stimuli, tmp_path, kinds, "all")
    pairs, tokens, _ = examples()
    said: dict = {"volume": open_volume(path), "np": np}
    exec(pairs, said)
    exec(tokens, said)
    ids = read(model, toy_stimuli, "all").ids[7]
    alone = model.activations(model.batch([ids]), kinds)
    heard = {site.kind: a[0].numpy() for site, a in alone.items() if site.layer == 2}
    grid = said["grid"].transpose("head", "pair_query", "pair_key").to_numpy()
    assert grid.shape == (4, len(ids), len(ids))
    assert np.nan_to_num(grid) == pytest.approx(heard["attn_probs"], abs=1e-6)
    assert np.isnan(grid[:, 0, 1:]).all()
    assert said["text"]["token_id"].to_numpy().tolist() == ids
    assert said["text"].sel(layer=2).to_numpy() == pytest.approx(heard["resid_post"], abs=1e-5)


def test_the_example_of_an_edit_changes_what_it_says(tiny_model) -> None:
    model = tiny_model("llama")
    batch = model.batch([model.prompt(6)])
    said: dict = {"model": model, "batch": batch}
    exec(examples()[2], said)
    assert said["applied"].moved[0] > 0
    assert not torch.equal(said["logits"], model.forward(batch, head=True))


def _recorded(model, stimuli, folder: Path, kinds: tuple, tokens) -> Path:
    recording = Recording(model.source, stimuli, kinds, tokens, "float32")
    return record(recording, folder, lambda: model, protocol_sha256="none")


if __name__ == "__main__":  # the tables, to be pasted after a change of the code
    print("\n\n".join(made() for made in (kinds, tolerances, aliases, refusals)))
