"""Parcels are the groups that were planted, and numbers of heads those of a principal component."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from analyses import AnalysisError
from analyses.connectome import Connectome
from analyses.parcels import Parcels, clusters, eigenvariate
from scanner import Live, Recording, Subject, open_volume, record
from scanner.sites import Site
from scanner.token_activations import each_once, token_activations
from tests.conftest import sentences_of


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def read(tiny_model, tmp_path_factory) -> tuple[Live, Subject]:
    """A toy model with its heads and its stream."""
    model, folder = tiny_model("llama", seed=5), tmp_path_factory.mktemp("heads")
    live, _ = sentences_of(model, folder)
    recording = Recording(
        model.source, live.recording.stimuli, ("resid_post", "z"), "target", "float32"
    )
    at = record(recording, folder, lambda: model, protocol_sha256="0" * 64)
    return Live(model, recording), Subject("toy", open_volume(at), {})


def told(analysis: Parcels, live: Live, subject: Subject):
    (run,) = analysis.runs(live, subject)
    return analysis.act(live, subject, run, rng=generator())


def texts(live: Live, site: Site) -> np.ndarray:
    ids = Parcels("z", text="agreement")._read(live)
    return each_once(ids, token_activations(live.model, ids, [site])[site]).astype(float)


def test_a_head_is_its_first_principal_component(read) -> None:
    live, subject = read
    found = told(Parcels("z", text="agreement"), live, subject)
    assert found["parcels"].shape == (24, 1, 12)
    assert found["parcel_name"].to_numpy()[6] == "head 2 of layer 1"
    x = subject.volume["z"].transpose("stimulus", "layer", "head", "head_unit").to_numpy()
    for parcel in (0, 6, 11):
        layer, head = divmod(parcel, 4)
        tokens = texts(live, Site("z", layer))[:, 8 * head : 8 * head + 8]
        pca = PCA(1).fit(tokens)
        expected = pca.transform(x[:, layer, head].astype(float))[:, 0]
        sign = np.sign(pca.components_[0].sum())
        np.testing.assert_allclose(
            found["parcels"][:, 0, parcel], sign * expected, rtol=1e-3, atol=1e-4
        )
    by_layer = told(Parcels("z", across=False, text="agreement"), live, subject)
    assert by_layer["parcels"].shape == (24, 3, 4)
    np.testing.assert_array_equal(
        by_layer["parcels"].to_numpy().reshape(24, 12), found["parcels"].to_numpy()[:, 0]
    )


def test_planted_groups_are_found_and_one_number_tells_them() -> None:
    rng = generator()
    group = np.repeat(np.arange(3), 8)[rng.permutation(24)]
    sources = rng.normal(size=(500, 3))
    tokens = sources[:, group] * rng.uniform(1, 50, 24) + rng.normal(size=(500, 24))
    tokens = np.column_stack([tokens, np.full(500, 7.0)])  # a unit that does nothing
    weights = clusters(tokens, 3, rng)
    member = (weights[:, :24] != 0).argmax(0)
    assert all(len(set(member[group == one])) == 1 for one in range(3))
    assert len(set(member)) == 3
    assert not weights[:, 24].any()
    series = (tokens - tokens.mean(0)) @ weights.T
    for one in range(3):
        assert abs(np.corrcoef(series[:, member[group == one][0]], sources[:, one])[0, 1]) > 0.98


def test_a_direction_has_no_sign_by_luck() -> None:
    x = generator().normal(size=(100, 1)) @ np.array([[3.0, 1, -1]])
    for sign in (1, -1):
        np.testing.assert_allclose(eigenvariate(sign * x), np.array([3, 1, -1]) / 11**0.5)


def test_clusters_of_the_stream_stand_layer_by_layer_and_make_a_graph(read) -> None:
    live, subject = read
    analysis = Parcels("resid_post", by="cluster", count=5, text="agreement")
    found = told(analysis, live, subject)
    assert found["parcels"].shape == (24, 1, 15)
    assert found["parcel_units"].sum() == 3 * 32
    labels = {label: ("stimulus", subject.volume[label].values)
              for label in ("item", "frame", "category")}  # fmt: skip
    volume = found.drop_vars("stimulus").assign_coords(labels)
    worth = analysis(subject.replace_volume(volume), rng=generator())
    assert 0 < worth["told_each"].item() <= 1
    assert worth["units_each"].item() == pytest.approx(32 / 5)
    graph = Connectome("parcels", densities=(0.2,), nulls=2)
    measured = graph(subject.replace_volume(volume), rng=generator())
    assert measured["matrix"].shape == (15, 15)
    names = {f"cluster {one} of layer {layer}" for one in range(5) for layer in range(3)}
    assert set(measured["node"].to_numpy().tolist()) == names
    # Side by side as the circle draws them.
    assert (np.diff(measured["module"]) >= 0).all()
    assert measured["layer"].to_numpy().tolist() == [0]


def test_few_units_that_vary_and_no_parcels_are_errors(read) -> None:
    _, subject = read
    with pytest.raises(AnalysisError, match="2 units vary, and 3 clusters are asked"):
        clusters(np.column_stack([generator().normal(size=(9, 2)), np.ones(9)]), 3, generator())
    with pytest.raises(AnalysisError, match="its volume has no parcels"):
        Parcels("z")(subject, rng=generator())
    assert "resid_post' has no heads; z has" in Parcels("resid_post").misfit(
        ("stimulus", "layer", "unit")
    )
    for settings, why in (
        ({"by": "lobe"}, "none of head, cluster"),
        ({"count": 1}, "at least 2"),
        ({"text": "novel"}, "no set 'novel'"),
    ):
        with pytest.raises(ValueError, match=why):
            Parcels("z", **settings)
