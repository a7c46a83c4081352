"""What recordings of large models come to: bytes, seconds and dollars, as `docs/scaling.md` has it.

``python -m benchmarks.scaling`` writes the table there anew. Nothing is recorded: bytes are those
that `scan check` tells, seconds and dollars are arithmetic with the rates below, which are assumed
and can be given otherwise.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scanner.plan import stored_bytes
from scanner.reading import Tokens
from scanner.sites import Kind
from scanner.sizes import SHIPPED, Size, size_of

PAGE = Path(__file__).parent.parent / "docs/scaling.md"
BEGIN, END = "<!-- written by benchmarks/scaling.py -->", "<!-- end -->"
# Those that no protocol is shipped for. 7B: Touvron et al. 2023, Llama 2; 405B: Grattafiori et al.
# 2024, table 3. The 70B model is the one of `protocols/large/`.
SHAPES = {
    "7B": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
        "tie_word_embeddings": False,
    },
    "405B": {
        "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126,
        "num_attention_heads": 128, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
LARGE = "meta-llama/Llama-3.3-70B-Instruct"
SCANS: dict[str, tuple[tuple[Kind, ...], Tokens]] = {
    "stream, one token": (("resid_post",), "target"),
    "stream, all tokens": (("resid_post",), "all"),
    "stream and neurons, all tokens": (("resid_post", "mlp_act"), "all"),
}


def sizes() -> dict[str, Size]:
    """Of each model, by its name in the table; counted in the network that would be built."""
    for name, shape in SHAPES.items():
        SHIPPED[name] = {"from": name, "config": {"model_type": "llama", **shape}}
    return {"7B": size_of("7B"), "70B": size_of(LARGE), "405B": size_of("405B")}


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def table(given: argparse.Namespace) -> Iterator[str]:
    """The lines of the table."""
    lengths = np.full(given.texts, given.tokens)
    columns = ("model", "weights", "GPUs", "loading", "passes", "what is kept", "volume",
               "to disk", "dollars", "a month of disk")  # fmt: skip
    yield f"| {' | '.join(columns)} |"
    yield "|---|" + "---:|" * 4 + "---|" + "---:|" * 4
    for name, size in sizes().items():
        weights = size.weight_bytes("bfloat16", None)
        gpus = math.ceil(weights * given.room / (given.memory * 1e9))
        loading = weights / (given.disk * 1e9)
        seconds = size.operations(given.texts * given.tokens) / (gpus * given.teraflops * 1e12)
        for what, (kinds, tokens) in SCANS.items():
            volume = stored_bytes(lengths, kinds, tokens, size.anatomy, store="float16")
            # Parts and then shards: written twice and read once.
            writing = 3 * volume / (given.disk * 1e9)
            # Parts are written beside the passes, shards after them.
            hours = (loading + max(seconds, writing / 3) + writing * 2 / 3) / 3600
            cells = (
                name, f"{_short(weights / 1e9)} GB", str(gpus), f"{_short(loading)} s",
                f"{_short(seconds)} s", what, f"{_short(volume / 1e9)} GB", f"{_short(writing)} s",
                _short(hours * gpus * given.gpu_hour),
                _short(volume / 1e9 * given.gigabyte_month),
            )  # fmt: skip
            yield f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("texts", 10_000), ("tokens", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("teraflops", 100.0), ("memory", 80.0), ("room", 1.2), ("disk", 1.0),
                          ("gpu-hour", 2.5), ("gigabyte-month", 0.023)):  # fmt: skip
        parser.add_argument(f"--{name}", type=float, default=default)
    given = parser.parse_args()
    said = (
        f"{given.texts:,} texts of {given.tokens} tokens, stored as float16, bfloat16 weights. "
        f"Assumed, not measured: {given.teraflops:g} TFLOP/s a GPU, {given.memory:g} GB in each, "
        f"weights times {given.room:g} for what a pass needs, a disk of {given.disk:g} GB/s, "
        f"{given.gpu_hour:g} dollars for a GPU and hour, {given.gigabyte_month:g} dollars for a GB "
        "and month."
    )
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text("\n".join([before + BEGIN, said, "", *table(given), END + after]))


if __name__ == "__main__":
    main()
