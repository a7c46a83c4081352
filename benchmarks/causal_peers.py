"""One peer's patching loop: the stream after each block set to a donor's at the last token.

    python benchmarks/causal_peers.py PEER MODEL_FOLDER TEXTS.json --repeats N

Run with the Python of an environment made of ``benchmarks/peers.txt``. The file holds ``ids`` and
``donors``, rows of token ids of one length. All texts go through the model at once, for each block
anew, as the peer's documentation patches; the donors' streams are there before the clock runs.
Prints one line of JSON: package, version, seconds, and the divergences of the next token.
"""

import argparse
import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from peers import load_hooked_transformer, load_network, load_nnsight

LENS = "blocks.{}.hook_resid_post"


def donors_streams(folder: str, donors: torch.Tensor) -> torch.Tensor:
    """layer x text x unit, at the last token."""
    network, heard = load_network(folder), []
    handles = [
        block.register_forward_hook(lambda _module, _args, output: heard.append(output[:, -1]))
        for block in network.base_model.layers
    ]
    network.base_model(donors, use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.stack(heard)


def lens(model: Any, ids: torch.Tensor, streams: torch.Tensor) -> list[torch.Tensor]:
    found = [model(ids)[:, -1]]
    for layer, stream in enumerate(streams):

        def patch(states: torch.Tensor, hook: Any, stream: torch.Tensor = stream) -> torch.Tensor:
            states[:, -1] = stream
            return states

        hooks = [(LENS.format(layer), patch)]
        found.append(model.run_with_hooks(ids, fwd_hooks=hooks)[:, -1])
    return found


def nnsight(model: Any, ids: torch.Tensor, streams: torch.Tensor) -> list[torch.Tensor]:
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with model.trace(inputs):
        intact = model.lm_head.output[:, -1].save()
    found = [intact]
    for layer, stream in enumerate(streams):
        with model.trace(inputs):
            model.model.layers[layer].output[:, -1] = stream
            patched = model.lm_head.output[:, -1].save()
        found.append(patched)
    return found


PEERS: dict[str, tuple[str, Callable[[str], Any], Callable[..., list[torch.Tensor]]]] = {
    "transformer-lens": ("transformer-lens", load_hooked_transformer, lens),
    "nnsight": ("nnsight", load_nnsight, nnsight),
}


@torch.inference_mode()
def main() -> None:
    """Patch, and say how long it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("folder")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    texts = json.loads(asked.texts.read_text())
    ids, donors = torch.tensor(texts["ids"]), torch.tensor(texts["donors"])
    streams = donors_streams(asked.folder, donors)
    package, load, sweep = PEERS[asked.peer]
    model = load(asked.folder)
    seconds, logits = [], []
    for _ in range(asked.repeats):
        start = time.perf_counter()
        logits = sweep(model, ids, streams)
        seconds.append(time.perf_counter() - start)
    intact, *patched = (one.double().log_softmax(-1) for one in logits)
    divergence = [torch.sum(intact.exp() * (intact - one), dim=-1).tolist() for one in patched]
    print(
        json.dumps(
            {
                "package": package,
                "version": importlib.metadata.version(package),
                "seconds": statistics.median(seconds),
                "divergence": divergence,
            }
        )
    )


if __name__ == "__main__":
    main()
