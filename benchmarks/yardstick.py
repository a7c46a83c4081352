"""What recording is measured against: the forward passes alone, with nothing listened to.

``python -m benchmarks.yardstick MODEL_FOLDER TEXTS.json`` prints the seconds of both calls, on the
clock and of the processor: on a busy machine the second is the one to compare.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

BATCH = 32


def padded(
    ids: Sequence[Sequence[int]], filler: int, length: int | None = None
) -> dict[str, torch.Tensor]:
    """Token ids of one batch, padded on the right to the longest or to `length`."""
    length = length or max(map(len, ids))
    tokens = torch.full((len(ids), length), filler)
    mask = torch.zeros((len(ids), length), dtype=torch.long)
    for row, text in enumerate(ids):
        tokens[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return {"input_ids": tokens, "attention_mask": mask}


@torch.inference_mode()
def bare(model: Any, ids: Sequence[Sequence[int]]) -> float:
    """Seconds of the base model over all texts: no head, batches of like length, nothing kept."""
    base, filler = model.base_model, model.config.pad_token_id or 0
    start = time.perf_counter()
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for first in range(0, len(order), BATCH):
        batch = padded([ids[row] for row in order[first : first + BATCH]], filler)
        base(**{name: part.to(base.device) for name, part in batch.items()}, use_cache=False)
    return time.perf_counter() - start


@torch.inference_mode()
def usual(model: Any, ids: Sequence[Sequence[int]]) -> float:
    """Seconds of the usual call: with the head, in the table's order, all padded to the longest."""
    filler, longest = model.config.pad_token_id or 0, max(map(len, ids))
    start = time.perf_counter()
    for first in range(0, len(ids), BATCH):
        model(**padded(ids[first : first + BATCH], filler, longest))
    return time.perf_counter() - start


def median(
    call: Callable[[Any, Sequence[Sequence[int]]], float],
    model: Any,
    ids: Sequence[Sequence[int]],
    repeat: int = 3,
) -> dict[str, float]:
    """Medians of the seconds on the clock and of the processor, after a warm-up on two texts."""
    call(model, ids[:2])
    wall, processor = [], []
    for _ in range(repeat):
        start = time.process_time()
        wall.append(call(model, ids))
        processor.append(time.process_time() - start)
    return {
        "seconds": round(statistics.median(wall), 3),
        "processor_s": round(statistics.median(processor), 3),
    }


if __name__ == "__main__":
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    folder, path = sys.argv[1:]
    with open(path) as file:
        texts = json.load(file)["texts"]
    ids = AutoTokenizer.from_pretrained(folder, local_files_only=True)(texts)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    ).eval()
    seconds = {call.__name__: median(call, model, ids) for call in (bare, usual)}
    print(json.dumps({"texts": len(ids), "tokens": sum(map(len, ids)), **seconds}))
