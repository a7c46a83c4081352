"""Dictionaries find atoms that were planted, and read what sae-lens reads."""

import numpy as np
import pytest
import sae_lens
import torch

from scanner import Site
from scanner.dictionaries import (
    Dictionary,
    DictionaryError,
    Training,
    check_hook,
    check_rebuilt,
    released,
    train,
)


def atoms(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    made = rng.normal(size=(count, width))
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def sums(of: np.ndarray, tokens: int, active: int, rng: np.random.Generator) -> np.ndarray:
    """Tokens that are a few atoms each, away from 0 and of another size than 1."""
    weights = np.zeros((tokens, len(of)))
    for row in weights:
        row[rng.choice(len(of), active, replace=False)] = rng.uniform(1, 2, active)
    return (7 * weights @ of + 30).astype(np.float32)


def made(encoder: np.ndarray, decoder: np.ndarray, active: int) -> sae_lens.SAE:
    """A top-k autoencoder with these weights: unit x feature, feature x unit."""
    sae = sae_lens.TopKSAE(
        sae_lens.TopKSAEConfig(d_in=len(encoder), d_sae=len(decoder), k=active, device="cpu")
    )
    sae.W_enc.data, sae.W_dec.data = torch.tensor(encoder).float(), torch.tensor(decoder).float()
    return sae


@pytest.mark.parametrize("architecture", ["topk", "jumprelu"])
def test_planted_atoms_are_found(architecture) -> None:
    rng = np.random.default_rng(0)
    planted = atoms(48, 32, rng)
    x = sums(planted, 12_000, 3, rng)
    told = []
    training = Training(architecture, width=64, active=3, tokens=400_000, seed=1)
    found = train(x[:10_000], training, advance=told.append)
    assert sum(told) == training.tokens // 512 * 512
    alike = np.abs(planted @ found.directions.T).max(1)
    assert np.mean(alike > 0.9) > 0.8
    by_luck = np.abs(planted @ atoms(64, 32, rng).T).max(1)
    assert np.mean(by_luck > 0.9) < 0.05
    held_out = x[10_000:]
    left = np.square(held_out - found.rebuilt(held_out)).sum()
    assert left < 0.15 * np.square(held_out - held_out.mean(0)).sum()
    assert 2 < (found.encode(held_out) != 0).sum(1).mean() < 5


def test_features_are_told_by_what_they_write() -> None:
    rng = np.random.default_rng(0)
    encoder, decoder = rng.normal(size=(6, 10)), rng.normal(size=(10, 6))
    x = rng.normal(size=(5, 6)).astype(np.float32)
    sizes = rng.uniform(0.5, 2, size=10)
    one = Dictionary(made(encoder, decoder, 10))
    other = Dictionary(made(encoder / sizes, decoder * sizes[:, None], 10))
    np.testing.assert_allclose(one.encode(x), other.encode(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.rebuilt(x), other.rebuilt(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.encode(x) @ one.directions, one.rebuilt(x), rtol=1e-4, atol=1e-5)
    expected = np.maximum(x @ encoder, 0) * np.linalg.norm(decoder, axis=1)
    np.testing.assert_allclose(one.encode(x), expected, rtol=1e-4, atol=1e-5)


def test_the_same_seed_is_the_same_dictionary() -> None:
    rng = np.random.default_rng(0)
    x = sums(atoms(12, 8, rng), 600, 2, rng)
    before = torch.random.get_rng_state()
    one, same, other = (
        train(x, Training(width=16, active=2, tokens=5_000, seed=seed)).directions
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other, atol=0.01)
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_others_released_is_held_to_its_site(tmp_path) -> None:
    rng = np.random.default_rng(0)
    sae = made(rng.normal(size=(6, 10)), rng.normal(size=(10, 6)), 3)
    sae.cfg.metadata.hook_name = "blocks.2.hook_resid_post"
    sae.save_model(tmp_path / "sae")
    found, hook = released("disk", str(tmp_path / "sae"))
    x = rng.normal(size=(4, 6)).astype(np.float32)
    np.testing.assert_allclose(found.encode(x), Dictionary(sae).encode(x), rtol=1e-5)
    check_hook(found, hook, Site("resid_post", 2))
    with pytest.raises(DictionaryError, match=r"reads 'blocks.2.hook_resid_post'.*not resid_post"):
        check_hook(found, hook, Site("resid_post", 1))
    with pytest.raises(DictionaryError, match="reads 6 units, and the site has 7"):
        found.encode(np.zeros((2, 7), dtype=np.float32))
    with pytest.raises(DictionaryError, match="is no site"):
        check_hook(found, "nowhere", Site("resid_post", 1))


def test_what_rebuilds_less_than_the_mean_is_refused() -> None:
    x = np.random.default_rng(0).normal(size=(20, 4))
    check_rebuilt(x, 0.9 * x)
    with pytest.raises(DictionaryError, match="leaves 9.. times the variance.*another model"):
        check_rebuilt(x, 4 * x)


def test_what_cannot_be_had_is_told(tmp_path, monkeypatch) -> None:
    with pytest.raises(DictionaryError, match="dictionary disk, "):
        released("disk", str(tmp_path / "nothing"))
    with pytest.raises(DictionaryError, match="dictionary no-such-release, layer_1"):
        released("no-such-release", "layer_1")
    with pytest.raises(DictionaryError, match="100 tokens to train on, and a step takes 512"):
        train(np.zeros((100, 4), dtype=np.float32), Training())
    monkeypatch.setitem(__import__("sys").modules, "sae_lens", None)
    with pytest.raises(DictionaryError, match="make sae"):
        train(np.zeros((600, 4), dtype=np.float32), Training())
