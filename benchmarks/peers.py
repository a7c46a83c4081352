"""One peer, end to end: a local model and texts in, activations on disk out, one line of JSON.

    python benchmarks/peers.py PEER MODEL_FOLDER TEXTS.json OUT_FOLDER --tokens target|all

Run with the Python of an environment made of ``benchmarks/peers.txt``. Timed is what records and
writes all texts, after a warm-up on two; loading is told apart. Everything in one thread, float32.

Sites: resid_post, attn_out, mlp_out and mlp_act (what enters the down projection) of all layers,
at the target's last token or at all tokens. Each peer as its documentation has it at its fastest:
only the wanted sites, no vocabulary head where it can be left out, batches of texts of like length.
Two offer less, in their favour:

    hidden-states   the residual stream only, and of the last layer only what its norm made of it
    sae-lens        one hook point a run (stopping at its layer), all texts padded to one length,
                    and no choice of token, so that `target` costs it as much as `all`; here its
                    runs share what is loaded
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for _library in ("OMP", "MKL", "OPENBLAS"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer  # noqa: E402

KINDS = ("resid_post", "attn_out", "mlp_out", "mlp_act")
Arrays = Mapping[str, list[torch.Tensor]]  # kind to its layers


@dataclass(frozen=True)
class Batch:
    """Texts of one forward pass, padded on the right; `positions` is None for all tokens."""

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor | None

    def wanted(self, states: torch.Tensor) -> torch.Tensor:
        """Of batch x position x unit the targets, or everything as it is."""
        if self.positions is None:
            return states
        return states[torch.arange(len(states)), self.positions]


def batches(
    ids: Sequence[Sequence[int]], positions: Sequence[int] | None, size: int, filler: int
) -> Iterator[Batch]:
    """Texts in batches, the short ones first."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        longest = max(len(ids[row]) for row in rows)
        tokens = torch.full((len(rows), longest), filler)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):
            tokens[place, : len(ids[row])] = torch.tensor(ids[row])
            mask[place, : len(ids[row])] = 1
        wanted = None if positions is None else torch.tensor([positions[row] for row in rows])
        yield Batch(tokens, mask, wanted)


def save_numpy(heard: Arrays, path: Path) -> None:
    """One file a site: stacking the layers first would cost a copy more."""
    for kind, layers in heard.items():
        for layer, states in enumerate(layers):
            np.save(path.with_name(f"{path.name}.{kind}.{layer}.npy"), states.numpy())


def save_torch(heard: Arrays, path: Path) -> None:
    """One file for everything."""
    torch.save({kind: list(layers) for kind, layers in heard.items()}, path.with_suffix(".pt"))


@dataclass(frozen=True)
class Peer:
    """How a peer is loaded and listens to one batch, and how what it heard is written."""

    package: str
    load: Callable[[str], Any]
    listen: Callable[[Any, Batch], Arrays]
    save: Callable[[Arrays, Path], None] = save_numpy
    batch: int = 32

    def record(
        self,
        model: Any,
        ids: Sequence[Sequence[int]],
        positions: Sequence[int] | None,
        out: Path,
        size: int,
        filler: int,
    ) -> None:
        """Targets are joined and written at the end, all tokens after each batch."""
        heard: list[Arrays] = []
        for number, batch in enumerate(batches(ids, positions, size, filler)):
            heard.append(self.listen(model, batch))
            if positions is None:
                self.save(heard.pop(), out / f"{number:04}")
        if heard:
            layers = {kind: range(len(values)) for kind, values in heard[0].items()}
            joined = {
                kind: [torch.cat([part[kind][layer] for part in heard]) for layer in layers[kind]]
                for kind in layers
            }
            self.save(joined, out / "targets")


def load_network(folder: str, kind: Any = AutoModelForCausalLM, **options: Any) -> Any:
    return kind.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, **options
    ).eval()


# transformers: output_hidden_states ---------------------------------------------------------------


def listen_hidden_states(model: Any, batch: Batch) -> Arrays:
    output = model(
        input_ids=batch.ids, attention_mask=batch.mask, output_hidden_states=True, use_cache=False
    )
    return {"resid_post": [batch.wanted(states) for states in output.hidden_states[1:]]}


# transformer-lens: run_with_cache -----------------------------------------------------------------

LENS_HOOKS = {
    "resid_post": "blocks.{}.hook_resid_post",
    "attn_out": "blocks.{}.hook_attn_out",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "mlp_act": "blocks.{}.mlp.hook_post",
}


def load_hooked_transformer(folder: str) -> Any:
    """HookedTransformer refuses a folder, but what it is made of (3.x) takes one."""
    import transformer_lens.loading_from_pretrained as loading
    from transformer_lens import HookedTransformer

    cfg = loading.get_pretrained_model_config(folder, dtype=torch.float32, device="cpu")
    model = HookedTransformer(cfg, move_to_device=False)
    weights = loading.get_pretrained_state_dict(
        folder, cfg, load_network(folder), dtype=torch.float32
    )
    model.load_and_process_state_dict(
        weights,
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return model.eval()


def load_bridge(folder: str) -> Any:
    """What 3.x recommends and 4.x has alone; weights as they are, attention eager."""
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(
        folder,
        hf_model=load_network(folder, attn_implementation="eager"),
        tokenizer=AutoTokenizer.from_pretrained(folder, local_files_only=True),
        device="cpu",
    )


def listen_lens(model: Any, batch: Batch) -> Arrays:
    """`run_with_cache` of the sites, asking for no logits; padding on the right harms no token."""
    layers = range(model.cfg.n_layers)
    names = {kind: [hook.format(layer) for layer in layers] for kind, hook in LENS_HOOKS.items()}
    _, cache = model.run_with_cache(
        batch.ids, return_type=None, names_filter=[name for all in names.values() for name in all]
    )
    return {kind: [batch.wanted(cache[name]) for name in names[kind]] for kind in names}


# nnsight: a trace ---------------------------------------------------------------------------------


def load_nnsight(folder: str) -> Any:
    from nnsight import TransformersModel

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return TransformersModel(load_network(folder), tokenizer=tokenizer, task="text-generation")


def listen_nnsight(model: Any, batch: Batch) -> Arrays:
    """A trace that ends after the last block, so that the vocabulary head does not run."""
    import nnsight

    wanted = batch.wanted
    with model.trace({"input_ids": batch.ids, "attention_mask": batch.mask}) as tracer:
        heard = nnsight.save({kind: [] for kind in KINDS})
        for block in model.model.layers:
            heard["attn_out"].append(wanted(block.self_attn.output[0]))
            heard["mlp_act"].append(wanted(block.mlp.down_proj.input))
            heard["mlp_out"].append(wanted(block.mlp.output))
            heard["resid_post"].append(wanted(block.output))
        tracer.stop()
    return heard


# sae-lens: CacheActivationsRunner -----------------------------------------------------------------


SAE_HOOKS = {
    "resid_post": "model.layers.{}",
    "attn_out": "model.layers.{}.self_attn",
    "mlp_out": "model.layers.{}.mlp",
    "mlp_act": LENS_HOOKS["mlp_act"],
}


def load_sae_lens(folder: str) -> dict[str, Any]:
    """Its two model classes: the one around transformers is a third faster, but hears only what
    modules give out, not what enters the down projection."""
    from sae_lens.load_model import HookedProxyLM

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    proxy = HookedProxyLM(load_network(folder), tokenizer)
    return {**dict.fromkeys(KINDS, proxy), "mlp_act": load_hooked_transformer(folder)}


def listen_sae_lens(models: dict[str, Any], batch: Batch) -> Arrays:
    """What a run would cache; only for comparing numbers."""
    heard = {}
    for kind, hook in SAE_HOOKS.items():
        names = [hook.format(layer) for layer in range(models["mlp_act"].cfg.n_layers)]
        cache = models[kind].run_with_cache(batch.ids, names_filter=names)[1]
        heard[kind] = [batch.wanted(cache[name]) for name in names]
    return heard


def record_sae_lens(
    models: dict[str, Any],
    config: Any,
    ids: Sequence[Sequence[int]],
    out: Path,
    size: int,
    filler: int,
) -> float:
    """A run for each hook point; gives back the seconds of the runs without their set-up.

    The texts are handed over pretokenized, one a row: left to itself it packs them end to end.
    A buffer is one batch, and every batch is full, or it begins the texts anew to fill it.
    """
    import sae_lens.cache_activations_runner as caching
    from datasets import Dataset
    from sae_lens import CacheActivationsRunner, CacheActivationsRunnerConfig

    longest = max(map(len, ids))
    rows = [[*text, *[filler] * (longest - len(text))] for text in ids]
    size = max(divisor for divisor in range(1, size + 1) if len(rows) % divisor == 0)
    seconds = 0.0
    for kind, hook in SAE_HOOKS.items():
        # One model for all runs: loading is not what is timed.
        caching.load_model = lambda model=models[kind], **_: model
        width = config.intermediate_size if kind == "mlp_act" else config.hidden_size
        for layer in range(config.num_hidden_layers):
            runner = CacheActivationsRunner(
                CacheActivationsRunnerConfig(
                    dataset_path="",
                    model_name="",
                    model_batch_size=size,
                    hook_name=hook.format(layer),
                    d_in=width,
                    training_tokens=len(rows) * longest,
                    context_size=longest,
                    new_cached_activations_path=str(out / hook.format(layer)),
                    shuffle=False,
                    device="cpu",
                    buffer_size_gb=(size * longest * width * 4 + 1) / 1e9,
                    prepend_bos=False,
                    streaming=False,
                ),
                override_dataset=Dataset.from_dict({"input_ids": rows}),
            )
            start = time.perf_counter()
            runner.run()
            seconds += time.perf_counter() - start
    return seconds


PEERS = {
    "hidden-states": Peer(
        "transformers", lambda folder: load_network(folder, AutoModel), listen_hidden_states
    ),
    "transformer-lens": Peer("transformer-lens", load_hooked_transformer, listen_lens, batch=64),
    "transformer-lens-bridge": Peer("transformer-lens", load_bridge, listen_lens, batch=64),
    "nnsight": Peer("nnsight", load_nnsight, listen_nnsight, save_torch),
    "sae-lens": Peer("sae-lens", load_sae_lens, listen_sae_lens),
}


def deviation(peer: Peer, model: Any, network: Any, ids: Sequence[Sequence[int]]) -> float:
    """The largest difference from what hooks hear in transformers, relative to a layer's largest
    value. The last layer is left out: in hidden states it is normed."""
    right: dict[str, list[torch.Tensor]] = {kind: [] for kind in KINDS}
    handles = []
    for block in network.base_model.layers:
        for kind, module in (
            ("resid_post", block),
            ("attn_out", block.self_attn),
            ("mlp_out", block.mlp),
            ("mlp_act", block.mlp.down_proj),
        ):

            def hook(_module: Any, args: Any, output: Any, kind: str = kind) -> None:
                value = args if kind == "mlp_act" else output
                right[kind].append(value[0] if isinstance(value, tuple) else value)

            handles.append(module.register_forward_hook(hook))
    largest = 0.0
    for text in ids:
        for values in right.values():
            values.clear()
        batch = Batch(torch.tensor([text]), torch.ones(1, len(text), dtype=torch.long), None)
        network.base_model(input_ids=batch.ids, use_cache=False)
        for kind, layers in peer.listen(model, batch).items():
            for a, b in zip(layers[:-1], right[kind][:-1], strict=True):
                largest = max(largest, float((a - b).abs().max() / b.abs().max()))
    for handle in handles:
        handle.remove()
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("model_folder")
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", choices=("target", "all"), required=True)
    parser.add_argument("--batch", type=int, help="texts a forward pass")
    parser.add_argument("--repeat", type=int, default=1, help="print the median of so many")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)

    peer = PEERS[args.peer]
    size = args.batch or peer.batch
    content = json.loads(args.texts.read_text())
    start = time.perf_counter()
    model = peer.load(args.model_folder)
    load_s = time.perf_counter() - start
    tokenizer = AutoTokenizer.from_pretrained(args.model_folder, local_files_only=True)
    ids = tokenizer(content["texts"])["input_ids"]
    positions = content["positions"] if args.tokens == "target" else None
    filler = tokenizer.pad_token_id or 0
    network = load_network(args.model_folder)

    def record(count: int) -> tuple[float, float, int]:
        """Wall seconds, processor seconds and bytes of recording the first texts."""
        args.out.mkdir(parents=True, exist_ok=True)
        out = Path(tempfile.mkdtemp(dir=args.out))
        wall, processor = time.perf_counter(), time.process_time()
        if args.peer == "sae-lens":
            seconds = record_sae_lens(model, network.config, ids[:count], out, size, filler)
        else:
            some = None if positions is None else positions[:count]
            peer.record(model, ids[:count], some, out, size, filler)
            seconds = time.perf_counter() - wall
        processor = time.process_time() - processor
        written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        shutil.rmtree(out)
        return seconds, processor, written

    with torch.inference_mode():
        deviates = deviation(peer, model, network, ids[:3])
        if args.peer != "sae-lens":  # two texts would cost it 120 runs; comparing has warmed it up
            record(2)
        runs = [record(len(ids)) for _ in range(args.repeat)]
    line = {
        "peer": args.peer,
        "version": importlib.metadata.version(peer.package),
        "tokens": args.tokens,
        "texts": len(ids),
        "batch": size,
        "seconds": round(statistics.median(run[0] for run in runs), 3),
        "processor_s": round(statistics.median(run[1] for run in runs), 3),
        "bytes": runs[0][2],
        "load_s": round(load_s, 2),
        "deviation": float(f"{deviates:.2g}"),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
