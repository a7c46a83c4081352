"""What comes of adding in parts and of scaling is what passes made by hand give."""

from typing import Any

import numpy as np
import pytest
import torch

from analyses import AnalysisError
from analyses.bus import Bus
from analyses.scaling import Scaling
from analyses.splits import item_groups
from analyses.targets import Patterns
from scanner import Edit, Live, Site, Subject
from tests.conftest import sentences_of


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def deep(tiny_model, tmp_path_factory) -> tuple[Live, Subject]:
    return sentences_of(
        tiny_model("llama", num_hidden_layers=5, seed=5), tmp_path_factory.mktemp("deep")
    )


def directions(subject: Subject, analysis: Any, layer: int) -> dict[int, np.ndarray]:
    """Of each stimulus that of its category, from the items of other groups; and their means."""
    items, values = (subject.volume[name].to_numpy().astype(object).astype(str)
                     for name in ("item", "category"))  # fmt: skip
    group = item_groups(items, values, groups=analysis.item_folds, rng=generator())
    x = subject.volume["resid_post"].to_numpy().astype(float)[:, layer]
    found = {}
    for row in range(len(x)):
        train = group != group[row]
        patterns = Patterns.of(x[train], items[train], (values == values[row])[train, None] * 1.0)
        inside = patterns.wanted[:, 0] == 1
        apart = patterns.items[inside].mean(0) - patterns.items[~inside].mean(0)
        found[row] = apart / np.linalg.norm(apart), patterns.center, group == group[row]
    return found


def judged(analysis: Any, live: Live, subject: Subject, layer: int):
    found = analysis.act(live, subject, layer, rng=generator())
    labels = {label: ("stimulus", subject.volume[label].values) for label in ("item", "category")}
    volume = found.drop_vars("stimulus").assign_coords(labels)
    return found, analysis(subject.replace_volume(volume), rng=generator())


@torch.no_grad()
def streams(live: Live, row: int, edits: list[Edit]) -> torch.Tensor:
    """The stream behind every block at the last token of the target: layer x unit."""
    with live.model.intervene(edits):
        batch = live.model.batch([live.ids[row]])
        heard = live.model.activations(batch, ("resid_post",))
    at = live.targets[row][-1]
    return torch.stack([heard[Site("resid_post", one)][0, at] for one in range(live.model.layers)])


def test_parts_and_the_whole_are_passes_by_hand(deep) -> None:
    live, subject = deep
    analysis = Bus("resid_post", (1,), blocks=2, sizes=(0.5, 1.0), random=2)
    found, measured = judged(analysis, live, subject, 1)
    x = subject.volume["resid_post"].to_numpy().astype(float)[:, 1]
    length = np.median(np.linalg.norm(x, axis=1))
    along = directions(subject, analysis, 1)
    apart = one = 0.0
    for row in range(len(x)):
        vector = 0.5 * length * along[row][0]
        at = list(live.targets[row])
        bare = streams(live, row, [])
        parts, whole = (
            (streams(live, row, [Edit("resid_post", "add", layers=layers, positions=at,
                                      value=times * vector)]) - bare).double().numpy()
            for layers, times in (([1, 2], 1), ([1], 2))
        )  # fmt: skip
        np.testing.assert_allclose(
            found["along_many"].isel(layer=0, stimulus=row, target=0, size=0)[2:],
            parts[2:] @ along[row][0], rtol=1e-4, atol=1e-5,
        )  # fmt: skip
        apart += np.sum((parts - whole)[-1] ** 2)
        one += np.sum((whole - 2 * vector)[-1] ** 2)
    assert float(measured["additivity"][0]) == pytest.approx(1 - np.sqrt(apart / one), abs=1e-3)
    # The copy that blocks hand on: a ratio near 1 in an untrained model, of any direction.
    np.testing.assert_allclose(measured["ratio_of"], 1, atol=0.2)
    at = measured["additivity_at"][0]
    assert np.isnan(at[:2]).all() and np.isfinite(at[2:]).all()
    known = found.sel(target=(found["target_kind"].values.astype(str) == "known"))
    assert (known["apart"] == 0).all() and (known["many"] == known["one"]).all()


def test_where_blocks_add_nothing_nothing_is_claimed_of_their_sum(tiny_model, tmp_path) -> None:
    model = tiny_model("llama", num_hidden_layers=5, seed=5)
    live, subject = sentences_of(model, tmp_path)
    with torch.no_grad():
        for block in model.base.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    with pytest.raises(AnalysisError, match="toy: its blocks make nothing of what is added"):
        judged(Bus("resid_post", (1,), blocks=2, random=2), live, subject, 1)


def test_scaling_is_passes_by_hand_and_nothing_at_the_end_of_the_stream(deep) -> None:
    live, subject = deep
    analysis = Scaling("resid_post", (2, 4), factors=(0.5, 3.0), random=2)
    whole = 0.0
    for layer in analysis.layers:
        found, measured = judged(analysis, live, subject, layer)
        along = directions(subject, analysis, layer)
        values = subject.volume["category"].to_numpy().astype(object).astype(str)
        word = np.array([live.ids[row][live.targets[row][0]] for row in range(len(values))])
        for row in range(0, len(values), 5):
            direction, center, inside = along[row]
            at = list(live.targets[row])
            batch = live.model.batch([live.ids[row][: at[-1] + 1]])
            others = np.unique(word[inside & (word != word[row])])
            same = np.isin(others, word[inside & (values == values[row])])
            for place, factor in enumerate(analysis.factors):
                edits = (
                    Edit("resid_post", "scale", layers=[layer], positions=at, value=factor,
                         along=direction, center=center),
                    Edit("resid_post", "scale", layers=[layer], positions=at, value=factor),
                )  # fmt: skip
                logits = []
                with torch.no_grad():
                    before = live.model.forward(batch, head=True)[0, -1].double()
                    for edit in edits:
                        with live.model.intervene([edit]):
                            logits.append(live.model.forward(batch, head=True)[0, -1].double())
                rise = (logits[0] - before).numpy()[others]
                told = found.isel(layer=0, stimulus=row, target=0, factor=place)
                assert float(told["shift"]) == pytest.approx(
                    rise[same].mean() - rise[~same].mean(), rel=1e-3, abs=1e-5
                )
                intact = before.log_softmax(0)
                moved = (intact.exp() * (intact - logits[1].log_softmax(0))).sum()
                assert float(told["whole"]) == pytest.approx(float(moved), rel=1e-2, abs=1e-6)
        if layer == 4:
            # Nothing but a norm follows, and the direct path is the only one.
            assert float(measured["whole"][0]) < 1e-2 * whole
            np.testing.assert_allclose(measured["direct"], measured["slope"], rtol=1e-3, atol=1e-5)
        else:
            whole = float(measured["whole"][0])
    assert "divides its length out" in analysis.identity_at("whole", 4, 5)
    assert Scaling("resid_post", (4,), factors=(-1.0, 2.0)).identity_at("whole", 4, 5) == ""
    assert analysis.identity_at("whole", 3, 5) == analysis.identity_at("slope", 4, 5) == ""


@pytest.mark.parametrize(
    ("analysis", "settings", "says"),
    [
        (Bus, {"site": "mlp_out"}, "'mlp_out' is not the stream"),
        (Bus, {"blocks": 1}, "a sum has at least 2 parts"),
        (Bus, {"sizes": (0.5, 0.5)}, "sizes: above 0, each once"),
        (Scaling, {"factors": (1.0, 2.0)}, "factors: each once, and none of them 1"),
        (Scaling, {"layers": (2, 2)}, "layers: whole numbers from 0, each once"),
        (Scaling, {"way": "units"}, "'units' is no direction"),
        (Scaling, {"item_folds": 1}, "item_folds at least 2"),
    ],
)
def test_settings_that_mean_nothing_are_refused(analysis, settings, says) -> None:
    with pytest.raises(ValueError, match=says):
        analysis(**{"site": "resid_post", "layers": (1,), **settings})


def test_what_they_cannot_do_is_said(deep) -> None:
    live, subject = deep
    assert "no block follows the 4 from 1 on" in Bus("resid_post", (0, 1)).beyond(5)
    assert Bus("resid_post", (0,)).beyond(5) == ""
    one = subject.relabel("category", np.full(subject.volume.sizes["stimulus"], "same"))
    with pytest.raises(AnalysisError, match="'category' has one value; scaling needs words"):
        Scaling("resid_post", (1,)).act(live, one, 1, rng=generator())
    with pytest.raises(AnalysisError, match="has no two words in a group of items"):
        Scaling("resid_post", (1,), item_folds=4).act(live, subject, 1, rng=generator())
