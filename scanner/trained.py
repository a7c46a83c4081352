"""Small networks that are trained here, from fresh weights, on texts of a grammar.

Of such texts it is known how well any model can do (`stimuli.Grammar.entropy`), so that what a
network has not learnt is a number. No text is shown twice but by chance: those of each step are
drawn anew, and those that the network is judged on are drawn apart from them.

The networks are Llamas (Touvron et al. 2023) of a few layers, whose gains stay 1: a gain that grows
while weights shrink would leave the network as it was, and a charge for weights without effect.
"""

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch.nn.functional import cross_entropy

from scanner.gradients import gradients_of
from scanner.model import Model, quietly
from scanner.provenance import digest
from scanner.sources import Source, cache_folder, described
from scanner.states import Advance, processor, taken
from scanner.wire_length import Penalty, cost, priced, wires
from stimuli import Grammar

SPECIAL = ("<pad>", "<unk>", "<s>")
# Tokens of the longest text that a network can read; those of the shipped grammar have ten.
CONTEXT = 256
# Texts that a network is judged on, and the seed that they alone are drawn with.
HELD_OUT, APART = 2000, 2**31
# Of those, read together.
TOGETHER = 200
LICENCE = "Apache-2.0"
# How a subject was made, in its folder.
MAKING = "making.json"


@dataclass(frozen=True)
class Training:
    """What a network is, and what it is trained on.

    Attributes
    ----------
    grammar : Grammar
    layers, width, heads, neurons : int
        Of the network; the width is shared by the heads.
    steps : int
    batch : int
        Texts of a step.
    rate : float
        How far a step moves a weight at most, about; it rises in the first tenth of the steps and
        then falls to nothing.
    seed : int
        Of fresh weights, and of the texts: networks of one seed begin alike and read the same.
    penalty : Penalty
    """

    grammar: Grammar
    layers: int = 2
    width: int = 64
    heads: int = 4
    neurons: int = 256
    steps: int = 2000
    batch: int = 32
    rate: float = 3e-3
    seed: int = 0
    penalty: Penalty = Penalty()

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"a width of {self.width} is not shared by {self.heads} heads in pairs of units; "
                "take a multiple of twice the heads"
            )

    @property
    def network(self) -> dict[str, object]:
        """All that the fresh network follows from."""
        return {
            "words": list(self.grammar.words),
            "layers": self.layers,
            "width": self.width,
            "heads": self.heads,
            "neurons": self.neurons,
            "seed": self.seed,
        }

    @property
    def content(self) -> dict[str, object]:
        """All that the training follows from, beside the fresh network."""
        return {
            "grammar": digest([[name, *map(list, some)] for name, some in self._rules]),
            "steps": self.steps,
            "batch": self.batch,
            "rate": self.rate,
            "seed": self.seed,
            "penalty": asdict(self.penalty),
        }

    @property
    def _rules(self) -> list[tuple[str, list[tuple[float, list[str]]]]]:
        rules = self.grammar.rules.items()
        return [(name, [(one.share, list(one.gives)) for one in some]) for name, some in rules]

    def texts(self, step: int) -> list[str]:
        """Those of a step, whichever were before it."""
        return self.grammar.sample(self.batch, rng=np.random.default_rng([self.seed, step]))

    @cached_property
    def held_out(self) -> list[str]:
        """Those that are not trained on, the same for all networks of a grammar."""
        return self.grammar.sample(HELD_OUT, rng=np.random.default_rng([APART]))


def fresh(training: Training) -> Source:
    """The network before its training, with a tokenizer of the grammar's words: a subject, too."""
    shape = f"{training.grammar.name}-{training.layers}x{training.width}"
    folder = cache_folder() / f"{shape}-{digest(training.network)[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fresh-") as staging:
                finished = Path(staging) / "model"
                _save_fresh(training, finished)
                finished.rename(folder)
    weights = f"fresh, of seed {training.seed}"
    return described(shape, folder, revision="made here", weights=weights)


def _save_fresh(training: Training, folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate((*SPECIAL, *training.grammar.words))}
    pad, unknown, begin = SPECIAL
    config = LlamaConfig(
        vocab_size=len(numbers),
        hidden_size=training.width,
        intermediate_size=training.neurons,
        num_hidden_layers=training.layers,
        num_attention_heads=training.heads,
        num_key_value_heads=training.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        pad_token_id=numbers[pad],
        bos_token_id=numbers[begin],
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network: Any = LlamaForCausalLM(config)
    with quietly():
        network.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(numbers), pad_token=pad, unk_token=unknown, bos_token=begin
    ).save_pretrained(folder)
    told = {"content": training.network, "licence": LICENCE}
    (folder / MAKING).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _tokenizer(numbers: Mapping[str, int]) -> Any:
    """One token a word, and one that begins each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    _, unknown, begin = SPECIAL
    found = Tokenizer(models.WordLevel(dict(numbers), unk_token=unknown))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, numbers[begin])]
    )
    return found


def train(
    model: Model, training: Training, state: Path, *, advance: Advance, every: float
) -> dict[str, object]:
    """Train a fresh network, by Adam (Kingma & Ba 2015) and without any decay of weights.

    Parameters
    ----------
    model : Model
        Of `fresh`, in float32; its weights are changed.
    training : Training
    state : pathlib.Path
        Where what is needed to go on is kept in between.
    advance, every
        As of `scanner.make`.

    Returns
    -------
    dict
        ``losses``: the mean surprisal of a word in each step before it, nats, without the penalty;
        ``held_out``, as of `held_out`; ``wires``, as of `scanner.wire_length.Wires`;
        ``processor_s``: seconds of processor time of the last run.
    """
    began = processor()
    weights = [one for one in model.network.parameters() if one.ndim > 1]
    wired = priced(model)
    charges = training.penalty.charges(wired)

    def take(step: int) -> float:
        optimiser.zero_grad()
        texts = training.texts(step)
        loss = surprisals(model, texts).sum() / _words(texts)
        whole = loss + training.penalty.strength * cost(wired, charges) if charges else loss
        whole.backward()
        optimiser.step()
        return float(loss.detach())

    with torch.enable_grad(), gradients_of(model.network, set(weights)):
        optimiser = torch.optim.Adam(weights, lr=training.rate)
        losses = taken(
            take, optimiser, weights, steps=training.steps, rate=training.rate, state=state,
            advance=advance, every=every,
        )  # fmt: skip
    return {
        "losses": losses,
        "held_out": held_out(model, training),
        "wires": wires(wired)._asdict(),
        "processor_s": round(processor() - began, 1),
    }


def surprisals(model: Model, texts: list[str]) -> torch.Tensor:
    """What each word costs, with its gradients: text x word, nats; 0 behind the end of a text."""
    batch = model.batch(model.tokenizer(texts)["input_ids"])
    logits = model.forward(batch, head=True)
    assert logits is not None
    costs = cross_entropy(
        logits[:, :-1].float().transpose(1, 2), batch.ids[:, 1:], reduction="none"
    )
    return costs * batch.mask[:, 1:]


@torch.inference_mode()
def held_out(model: Model, training: Training) -> dict[str, float]:
    """How a network does on texts that it was not trained on.

    Returns
    -------
    dict
        ``nats``: what a text costs on average, with ``error``, its standard error, and ``floor``,
        the entropy of the grammar; ``excess``: what it costs more than the grammar, text by text,
        with ``excess_error``; ``nats_a_word``.
    """
    texts, grammar = training.held_out, training.grammar
    parts = [texts[first : first + TOGETHER] for first in range(0, len(texts), TOGETHER)]
    costs = np.concatenate(
        [surprisals(model, some).sum(1).double().cpu().numpy() for some in parts]
    )
    more = costs - np.array([grammar.surprisal(text).sum() for text in texts])
    root = math.sqrt(len(texts))
    return {
        "texts": len(texts),
        "nats": float(costs.mean()),
        "error": float(costs.std(ddof=1) / root),
        "floor": grammar.entropy,
        "excess": float(more.mean()),
        "excess_error": float(more.std(ddof=1) / root),
        "nats_a_word": float(costs.sum()) / _words(texts),
    }


def told_loss(source: Source) -> float:
    """What a word costs a network that was trained here, nats, as its card tells; NaN of others.

    Of texts that it was not trained on (`held_out`).
    """
    making = source.folder / MAKING
    told = json.loads(making.read_text(encoding="utf-8")) if making.is_file() else {}
    return float(told.get("held_out", {}).get("nats_a_word", math.nan))


def _words(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)
