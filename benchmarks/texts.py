"""The texts that everyone in a benchmark reads, each with the span of its target word.

    crossed60, crossed240   the shipped set `concepts`, every word in every frame as protocols do
    unshared240             random words: no two texts begin alike, so nothing can be read only once

As a script it writes what `peers.py` reads: ``python -m benchmarks.texts MODEL_FOLDER NAME OUT``.
"""

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wordfreq

import stimuli


@dataclass(frozen=True)
class Texts:
    """Texts, and where in each the target word stands (characters, half open)."""

    name: str
    texts: list[str]
    spans: list[tuple[int, int]]

    def positions(self, tokenizer: Any) -> list[int]:
        """Index of the last token of each target."""
        offsets = tokenizer(self.texts, return_offsets_mapping=True)["offset_mapping"]
        return [
            max(
                position
                for position, (left, right) in enumerate(tokens)
                if left < right and left < end and right > start
            )
            for tokens, (start, end) in zip(offsets, self.spans, strict=True)
        ]

    def ids(self, tokenizer: Any) -> list[list[int]]:
        """Token ids of each text, without padding."""
        return tokenizer(self.texts)["input_ids"]


def crossed(items: int, frames: int) -> Texts:
    """A part of the shipped set: ten categories of `items` words, each word in each frame."""
    table = stimuli.load("concepts").part(items=items, frames=frames).table
    spans = list(zip(table["target_start"], table["target_end"], strict=True))
    return Texts(f"crossed{len(table)}", table["text"].tolist(), spans)


def unshared(count: int, seed: int = 0) -> Texts:
    """Rows of random frequent words, as long as the crossed ones, that all begin differently."""
    draw = random.Random(seed)
    words = [word for word in wordfreq.top_n_list("en", 3000) if word.isalpha() and len(word) > 2]
    # One word for each three letters: a tokenizer that splits it then begins otherwise, mostly.
    openers = list({word[:3]: word for word in reversed(words)}.values())
    texts, spans = [], []
    for first in draw.sample(openers, count):
        before = [first.capitalize(), *draw.sample(words, draw.randint(3, 6))]
        target = draw.choice(words)
        after = draw.sample(words, draw.randint(0, 3))
        start = len(" ".join(before)) + 1
        texts.append(" ".join([*before, target, *after]) + ".")
        spans.append((start, start + len(target)))
    return Texts(f"unshared{count}", texts, spans)


SETS: dict[str, Callable[[], Texts]] = {
    "crossed60": lambda: crossed(items=3, frames=2),
    "crossed240": lambda: crossed(items=6, frames=4),
    "unshared240": lambda: unshared(240),
}


def write(texts: Texts, tokenizer: Any, path: Path) -> Path:
    """The file that `peers.py` reads."""
    content = {"name": texts.name, "texts": texts.texts, "positions": texts.positions(tokenizer)}
    path.write_text(json.dumps(content))
    return path


if __name__ == "__main__":
    from transformers import AutoTokenizer

    folder, name, out = sys.argv[1:]
    write(SETS[name](), AutoTokenizer.from_pretrained(folder, local_files_only=True), Path(out))
