"""`scan check`: what it says before anything is recorded is what is found when it is."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from protocols.check import costs, told
from protocols.schema import load_study
from scanner import Recording, SourceError, record, trained
from scanner.sizes import SHIPPED, size_of
from tests.conftest import run

LARGE = sorted(Path("protocols/large").glob("*.yaml"))


def written(folder: Path, model: str, scan: str, analyses: str = "") -> Path:
    path = folder / "protocol.yaml"
    analyses = analyses or "gone: {lesion: {category: tools}}"
    path.write_text(
        f"study: small\nsubjects: [{model}]\nstimuli: {{set: concepts, items: 1, frames: 3}}\n"
        f"scan: {scan}\nanalyses:\n  {analyses}\n"
    )
    return path


@pytest.mark.parametrize("tokens", ["target", "last", "all", "[0, -1]"])
def test_the_bytes_that_are_told_are_those_that_are_recorded(smollm2, tmp_path, tokens) -> None:
    sites = "[resid_post, z, k, logits]" if tokens == "last" else "[resid_post, mlp_act]"
    path = written(tmp_path, "smollm2-135m-instruct", f"{{sites: {sites}, tokens: {tokens}}}")
    study = load_study(path)
    (cost,) = costs(study)
    scan = study.protocol.scan
    recording = Recording(
        smollm2.source, study.stimuli, tuple(scan.sites), scan.kept, "float32", store=scan.store
    )
    volume = record(recording, tmp_path, lambda: smollm2, protocol_sha256="0" * 64)
    found = sum(one.stat().st_size for one in volume.rglob("*") if one.is_file())
    assert cost.volume == pytest.approx(found, rel=0.03)
    assert cost.stimuli == 30 and not cost.guessed


def test_bytes_of_the_highest_logits_are_told(smollm2, tmp_path) -> None:
    scan = "{sites: [resid_post, logits], tokens: last, top_logits: 50, store: float16}"
    study = load_study(written(tmp_path, "smollm2-135m-instruct", scan))
    (cost,) = costs(study)
    assert cost.volume == 30 * (30 * 576 * 2 + 50 * (2 + 4))


def test_operations_are_those_of_a_pass(tiny_model) -> None:
    model = tiny_model("llama", hidden_size=128, intermediate_size=256)
    size = size_of(str(model.source.folder))
    assert size.parameters == sum(one.numel() for one in model.network.parameters())
    batch = model.batch([model.prompt(8), model.prompt(8, seed=1)])
    with torch.inference_mode(), FlopCounterMode(display=False) as counted:
        model.forward(batch, head=True, columns=torch.tensor([7]))
    # Weights of norms are told as if they were products, those of queries and keys are left out.
    told_ = size.operations(16, predicted=2)
    assert told_ == pytest.approx(counted.get_total_flops(), rel=0.02)


def test_published_counts_come_out() -> None:
    """Of GPT-OSS 116.8 and 5.1 active, of Llama 70.6, of Qwen2.5 32.8 billion parameters."""
    counts = {name: size_of(name) for name in SHIPPED}
    experts = counts["openai/gpt-oss-120b"]
    assert experts.parameters / 1e9 == pytest.approx(116.8, abs=0.05)
    assert (experts.active + experts.head) / 1e9 == pytest.approx(5.1, abs=0.05)
    llama = counts["meta-llama/Llama-3.3-70B-Instruct"]
    assert llama.parameters / 1e9 == pytest.approx(70.6, abs=0.1)
    assert counts["Qwen/Qwen2.5-32B-Instruct"].parameters / 1e9 == pytest.approx(32.8, abs=0.1)
    assert llama.weight_bytes("bfloat16", None) == 2 * llama.parameters
    assert llama.weight_bytes("bfloat16", "int8") < 0.52 * llama.weight_bytes("bfloat16", None)


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_the_heads_of_large_protocols_say_what_the_command_says(path: Path) -> None:
    study = load_study(path)
    assert study.protocol.hypotheses
    head = re.sub(r"\n#\s*", " ", path.read_text().partition("\nstudy:")[0])
    for cost in costs(study):
        assert cost.guessed  # else its tokenizer is here, and the numbers are better
        for line in told(cost, teraflops=100):
            assert line in head


def test_there_is_one_for_each_model_of_the_published_map() -> None:
    models = {load_study(path).protocol.subjects[0].model.lower() for path in LARGE}
    for name in ("llama-3.3-70b", "gemma-3-27b", "medgemma-27b", "qwen2.5-32b", "gpt-oss-120b"):
        assert sum(name in model for model in models) == 1


def test_there_is_one_for_each_family_whose_tuning_was_published() -> None:
    """Tanwar et al. (2025): a base first, then the medical variant, then what else was tuned."""
    studies = [load_study(path).protocol for path in LARGE if path.stem.startswith("domain_")]
    families = {tuple(one.called for one in study.subjects) for study in studies}
    assert families == {
        ("meta-llama/Meta-Llama-3-8B", "HPAI-BSC/Llama3-Aloe-8B-Alpha",
         "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("Qwen/Qwen2.5-7B", "HPAI-BSC/Qwen2.5-Aloe-Beta-7B", "Qwen/Qwen2.5-Math-7B-Instruct",
         "Qwen/Qwen2.5-Coder-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("microsoft/Phi-3.5-mini-instruct", "microsoft/MediPhi"),
    }  # fmt: skip
    counts = {one[0]: size_of(one[0]).parameters / 1e9 for one in families}
    # 8.03, 7.62 and 3.82 billion are published.
    assert sorted(counts.values()) == pytest.approx([3.82, 7.62, 8.03], abs=0.01)


def test_the_command_says_it(tmp_path, capfd, tiny_source) -> None:
    folder = tiny_source("llama").folder
    acts = (
        "gone: {lesion: {category: tools}}\n  pushed: {steering: {site: resid_post, layers: [1]}}"
    )
    path = written(tmp_path, str(folder), "{sites: [resid_post], twins: 2}", acts)
    run("check", path, "--teraflops", "2")
    said = capfd.readouterr().out
    assert "small: nothing is wrong with it" in said
    assert "30 texts of" in said and "guessed" not in said
    # Of three layers and parts: the text, three times one pass, attention and MLP with their block.
    assert "passes of each text: 7; networks: 3, twins among them" in said
    assert "at 2 TFLOP/s" in said
    assert "passes of pushed come on top and are not counted" in said
    assert f"in all {3 * 30 * 3 * 32 * 4 / 1e6:.4g} MB" in said
    assert not list(tmp_path.glob("results*"))


def test_a_mistake_is_named_and_a_model_that_is_nowhere(tmp_path, capfd, tiny_source) -> None:
    path = written(tmp_path, "smollm2-135m-instruct", "{sites: [resid_pots]}")
    run("check", path, code=1)
    assert "did you mean 'resid_post'" in " ".join(capfd.readouterr().err.split())
    with pytest.raises(SourceError, match="neither in the local cache nor among those that are"):
        size_of("nobody/nothing-7b")


def test_a_subject_that_is_made_has_the_size_of_what_it_is_made_of(tiny_model, tmp_path) -> None:
    model = tiny_model("llama").source.folder
    path = tmp_path / "protocol.yaml"
    path.write_text(
        f"study: small\nsubjects:\n  - {model}\n"
        f"  - {{model: taught, tuned: {{of: {model}, epochs: 2, batch: 8,"
        " stimuli: {set: tuning, only: {domain: [maths], form: [taught]}}}}\n"
        f"  - {{model: without, sum: {{of: {model}, add: {{taught: -1}}}}}}\n"
        "stimuli: {set: concepts, items: 1, frames: 1}\nscan: {sites: [resid_post], tokens: last}\n"
        "analyses: {geometry: {geometry: {site: resid_post}}}\n"
    )
    study = load_study(path)
    base, taught, without = costs(study)
    assert base.weights == taught.weights == without.weights
    assert base.operations == without.operations < taught.operations
    lesson = study.lesson("taught")
    assert lesson is not None
    assert (base.steps, taught.steps, without.steps) == (0, lesson.steps, 0)
    assert taught.taught > 2 * sum(len(text.split()) for text in lesson.stimuli.table["text"])
    said = f"made first: {lesson.steps} steps, {taught.taught:,} tokens; once, then it is kept"
    assert said in list(told(taught, teraflops=1))


def test_a_network_that_is_trained_here_costs_its_texts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(trained, "cache_folder", lambda: tmp_path / "cache")
    path = tmp_path / "protocol.yaml"
    path.write_text(
        "study: small\nsubjects:\n  - {model: own, trained: {grammar: nested, layers: 1, width: 16,"
        " heads: 2, neurons: 24, steps: 30, batch: 4}}\n"
        "stimuli: {set: nested, items: 1, frames: 1}\nscan: {sites: [resid_post], tokens: last}\n"
        "analyses: {geometry: {geometry: {site: resid_post}}}\n"
    )
    study = load_study(path)
    (cost,) = costs(study)
    training = study.training("own")
    assert training is not None
    # Words are tokens, and a text begins with one of its own.
    words = sum(1 + len(text.split()) for step in range(30) for text in training.texts(step))
    assert cost.steps == 30
    assert cost.taught == pytest.approx(words, rel=0.1)
    blocks = 4 * 16 * 16 + 3 * 16 * 24 + 2 * 16
    assert cost.size.parameters == blocks + 2 * cost.size.head + 16
    assert "million parameters" in next(told(cost, teraflops=1))
