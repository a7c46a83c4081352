"""Time and memory of telling what tuning has changed in the weights of a model.

    python -m benchmarks.weights --make
    python -m benchmarks.weights [--layers N]

Writes a base and a tuned model of Qwen2.5-0.5B's shapes, with weights at random in bfloat16, and
tells every matrix: shares inside on both sides, three norms, chance, spread, what rounding gives.
Writes `weights.md`. Weights at random take as long as any others: nothing here is iterated until
something is small but the largest singular values.
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from analyses.subspaces import moved
from scanner.components import MATRICES
from scanner.weights import Folder, changes

QWEN = {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
    "tie_word_embeddings": True,
}  # fmt: skip
SEED = 0


def make(folder: Path) -> None:
    """A base and a model tuned from it, unless they are there."""
    config = AutoConfig.for_model("qwen2", **QWEN)
    if (folder / "tuned" / "model.safetensors").exists():
        return
    torch.manual_seed(SEED)
    network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    network.save_pretrained(folder / "base")
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.02 * weight.float().std().nan_to_num(0.02))
    network.save_pretrained(folder / "tuned")


def used() -> float:
    """Processor time of this process, seconds."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("/tmp/weights-benchmark"))
    parser.add_argument("--layers", type=int, default=QWEN["num_hidden_layers"])
    parser.add_argument("--make", action="store_true", help="only write the two models")
    asked = parser.parse_args()
    if asked.make:
        make(asked.folder)
        return
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun, wall = used(), time.perf_counter()
    base = Folder.open(asked.folder / "base")
    found = changes(base, asked.folder / "tuned")
    opened = used() - begun
    largest, told, seconds = 0, 0, {}
    asked_for = [piece for piece in found.pieces if (piece.layer or 0) < asked.layers]
    for piece in asked_for:
        start = used()
        change = found.matrix(piece)
        largest = max(largest, change.nbytes)
        if piece.component in MATRICES:
            moved(base.matrix(piece), change)
            told += 1
        seconds[piece.component] = seconds.get(piece.component, 0.0) + used() - start
    spent, wall = used() - begun, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    each = sum(seconds.get(name, 0.0) for name in MATRICES) / asked.layers
    rows = "\n".join(f"| {name} | {one:.1f} |" for name, one in seconds.items())
    text = f"""# Weights

Written by `python -m benchmarks.weights --make` and then without `--make`, on one thread: a pair of
models of Qwen2.5-0.5B's shapes at random, bfloat16, {asked.layers} of their
{QWEN["num_hidden_layers"]} layers: {told} matrices, {len(asked_for)} tensors.

| | |
|---|---|
| processor time | {spent:.0f} s |
| processor time of a layer | {each:.2f} s |
| of the whole to find the components | {opened:.1f} s |
| wall time, on a machine shared with others | {wall:.0f} s |
| peak memory | {peak:.0f} MiB, of which {before:.0f} were there before anything was read |
| largest tensor, float32 | {largest / 2**20:.0f} MiB |

Processor time by component, seconds:

| | |
|---|---|
{rows}
"""
    (Path(__file__).parent / "weights.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
