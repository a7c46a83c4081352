"""What interventions cost, side by side in one run with a loop of full forward passes.

``make bench`` runs it and writes ``benchmarks/causal.md``. The loop is what most scripts do: a hook
on a block, a forward of all texts at once, the next block. Both sides run on the same texts and
must give the same divergences before they are timed. With ``--peers PYTHON``, the Python of an
environment of theirs, the loops of other tools are timed as well (``benchmarks/causal_peers.py``).
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.analyses import REPEATS, Race
from benchmarks.scanner import machine, table
from scanner import Edit, Model, Pair, attributed, find_source
from scanner.sites import OUTSIDE, PAIRED, Kind, Site, sites_of
from scanner.sweeps import Trial, sweep

PAGE = Path(__file__).parent / "causal.md"
COUNTRIES = (
    "France", "Italy", "Spain", "Germany", "Japan", "China", "Russia", "Egypt",
    "Greece", "Turkey", "Poland", "Sweden", "Norway", "Canada", "Brazil", "India",
)  # fmt: skip
KINDS: tuple[Kind, ...] = ("resid_post", "attn_out_post", "mlp_out_post")
DIRECTIONS = 6
# Nats. Of Gemma's divergences, ours are up to 0.0010 from those in float64, and the loop's 0.0016.
TOLERANCE = 1e-3
# What is timed of the loop.
SOME = slice(None, None, 10)
Hook = Callable[..., Any]
FRAME = "When she was at school she learned that the capital of {} is the city of"


class Sweeps:
    """The sweeps of one model over texts of one length, each as ours and as the loop."""

    def __init__(self, model: Model) -> None:
        self.model = model
        found = [model.tokenizer(FRAME.format(name))["input_ids"] for name in COUNTRIES]
        length = min(map(len, found))
        self.ids = [ids for ids in found if len(ids) == length]
        self.batch = model.batch(self.ids)
        # A text's corrupted twin is the next one.
        self.donors = model.batch([*self.ids[1:], self.ids[0]])
        with torch.inference_mode():
            self.given = dict(model.activations(self.donors, KINDS))

    def _predicted(self) -> torch.Tensor:
        logits = self.model.network(self.batch.ids, use_cache=False).logits
        return logits[:, -1].log_softmax(-1)

    @property
    def size(self) -> str:
        return f"{len(self.ids)} texts of {len(self.ids[0])} tokens, {self.model.layers} blocks"

    def ours(self, trials: list[Trial]) -> np.ndarray:
        made = np.empty(len(trials))
        for found in sweep(self.model, self.ids, trials):
            made[found.trials] = found.divergence
        return made.reshape(len(self.ids), -1)

    def lesions(self) -> list[Trial]:
        """Each block left out of each text."""
        return [
            Trial(text, (Edit("resid_post", "skip", layers=[layer]),))
            for text in range(len(self.ids))
            for layer in range(self.model.layers)
        ]

    def patches(self, sites: Sequence[Site], positions: Sequence[int]) -> list[Trial]:
        """What the donor had at each site and token."""
        given = {site: self.given[site].numpy() for site in sites}
        return [
            Trial(text, (Edit(site.kind, "replace", layers=[site.layer], positions=[at],
                              value=given[site][text, at], must_move=False),))
            for text in range(len(self.ids)) for site in sites for at in positions
        ]  # fmt: skip

    def directions(self) -> np.ndarray:
        """Of length one, as many as an ablation tries of each kind: direction x unit."""
        drawn = np.random.default_rng(0).normal(size=(DIRECTIONS, self.model.width))
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    def ablations(self, position: int) -> list[Trial]:
        """Each direction taken out of the stream at one token, behind each block."""
        return [
            Trial(text, (Edit("resid_post", "ablate", layers=[layer], positions=[position],
                              along=along),))
            for text in range(len(self.ids))
            for layer in range(self.model.layers)
            for along in self.directions()
        ]  # fmt: skip

    def ablation_hooks(self, position: int) -> list[tuple[Site, Hook]]:
        def ablate(along: torch.Tensor) -> Hook:
            def hook(_module: Any, _args: Any, output: Any) -> Any:
                first = output[0] if isinstance(output, tuple) else output
                changed = first.clone()
                there = changed[:, position]
                changed[:, position] = there - (there @ along)[:, None] * along
                return (changed, *output[1:]) if isinstance(output, tuple) else changed

            return hook

        return [
            (site, ablate(torch.from_numpy(along)))
            for site in sites_of("resid_post", self.model.layers)
            for along in self.directions()
        ]

    @torch.inference_mode()
    def loop(self, hooks: Sequence[tuple[Site, Hook]]) -> np.ndarray:
        """A full forward of all texts for each hook, and one without: text x hook."""
        intact = self._predicted()
        found = []
        for site, hook in hooks:
            module = self.model.network.get_submodule(self.model.found.port(site).path)
            with _placed(module, hook):
                edited = self._predicted()
            found.append(torch.sum(intact.exp() * (intact - edited), dim=-1))
        return torch.stack(found, dim=1).numpy()

    def lesion_hooks(self) -> list[tuple[Site, Hook]]:
        def skip(_module: Any, args: tuple[Any, ...], _output: Any) -> Any:
            return args[0]

        return [(site, skip) for site in sites_of("resid_post", self.model.layers)]

    def patch_hooks(
        self, sites: Sequence[Site], positions: Sequence[int]
    ) -> list[tuple[Site, Hook]]:
        def patch(site: Site, at: int) -> Hook:
            def hook(_module: Any, _args: Any, output: Any) -> Any:
                first = output[0] if isinstance(output, tuple) else output
                changed = first.clone()
                changed[:, at] = self.given[site][:, at]
                return (changed, *output[1:]) if isinstance(output, tuple) else changed

            return hook

        return [(site, patch(site, at)) for site in sites for at in positions]


@contextmanager
def _placed(module: torch.nn.Module, hook: Hook) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def peer_rows(sweeps: Sweeps, python: str) -> Iterator[list[str]]:
    """The stream patched at the last token after each block, by other tools.

    Raises
    ------
    AssertionError
        If their answers differ from ours.
    """
    model, script = sweeps.model, Path(__file__).with_name("causal_peers.py")
    stream = sites_of("resid_post", model.layers)
    trials = sweeps.patches(stream, [len(sweeps.ids[0]) - 1])
    ours, seconds = sweeps.ours(trials), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        sweeps.ours(trials)
        seconds.append(time.perf_counter() - start)
    for peer in ("transformer-lens", "nnsight"):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as texts:
            json.dump(
                {"ids": sweeps.batch.ids.tolist(), "donors": sweeps.donors.ids.tolist()}, texts
            )
            texts.flush()
            command = [python, script, peer, model.source.folder, texts.name]
            said = subprocess.run(
                [*map(str, command), "--repeats", str(REPEATS)],
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        found = json.loads(said.stdout.splitlines()[-1])
        apart = float(np.abs(ours - np.array(found["divergence"]).T).max())
        assert apart <= 1e-3, f"{peer}: answers differ by {apart:g}"
        mine = statistics.median(seconds)
        yield [
            f"the stream patched at the last token, {sweeps.size}",
            f"{found['package']} {found['version']}, all texts for each block", f"{apart:.1e}",
            f"{mine:.3f} s", f"{found['seconds']:.3f} s", f"{found['seconds'] / mine:.1f} x",
        ]  # fmt: skip


def attribution_row(sweeps: Sweeps) -> list[str]:
    """Attribution patching of every site, layer and token, against a bare forward of the texts.

    Raises
    ------
    AssertionError
        If its scores are not those of the forward.
    """
    model = sweeps.model
    kinds = [kind for kind in model.structure.kinds if kind not in {*PAIRED, *OUTSIDE}]
    places = range(len(sweeps.ids[0]))
    pairs = [
        Pair(clean, corrupt, (clean[-1], corrupt[0]), places)
        for clean, corrupt in zip(sweeps.donors.ids.tolist(), sweeps.ids, strict=True)
    ]

    @torch.inference_mode()
    def bare() -> torch.Tensor:
        return model.network(sweeps.batch.ids, use_cache=False, logits_to_keep=1).logits[:, -1]

    answers = torch.tensor([pair.answers for pair in pairs])
    right, wrong = bare().gather(1, answers).T
    apart = float(np.abs(attributed(model, pairs, kinds).base - (right - wrong).numpy()).max())
    assert apart <= 1e-3, f"attribution: scores differ by {apart:g}"
    seconds = {attributed: [], bare: []}
    for _ in range(REPEATS):
        for way, call in (
            (attributed, lambda: attributed(model, pairs, kinds)),
            (bare, bare),
        ):
            start = time.perf_counter()
            call()
            seconds[way].append(time.perf_counter() - start)
    ours, usual = (statistics.median(one) for one in seconds.values())
    return [
        f"attribution patching of {len(kinds)} kinds of site at every token, {sweeps.size}",
        "one bare forward of all texts", f"{apart:.1e}", f"{ours:.3f} s", f"{usual:.3f} s",
        f"{ours / usual:.1f} forwards",
    ]  # fmt: skip


def races(sweeps: Sweeps, *, everywhere: bool) -> list[Race]:
    model, size = sweeps.model, sweeps.size
    length = len(sweeps.ids[0])
    lesions = sweeps.lesions()
    made = [
        Race(f"each block left out, {size}", "a full forward of all texts for each block",
             lambda: sweeps.ours(lesions), lambda: sweeps.loop(sweeps.lesion_hooks()), TOLERANCE)
    ]  # fmt: skip
    stream = sites_of("resid_post", model.layers)
    parts = [site for kind in KINDS for site in sites_of(kind, model.layers)]
    wanted: list[tuple[str, list[Site], Sequence[int]]] = [
        ("stream, attention and MLP patched at the last token", parts, [length - 1])
    ]
    if everywhere:
        wanted.append(("the stream patched at every second token", stream, range(0, length, 2)))
    for what, sites, positions in wanted:
        trials, hooks = sweeps.patches(sites, positions), sweeps.patch_hooks(sites, positions)
        made.append(
            Race(f"{what}, {size}", "a full forward of all texts for each place",
                 lambda trials=trials: sweeps.ours(trials),
                 lambda hooks=hooks: sweeps.loop(hooks[SOME]), TOLERANCE,
                 len(hooks) / len(hooks[SOME]), lambda answer: answer[:, SOME])
        )  # fmt: skip
    trials, hooks = sweeps.ablations(length - 1), sweeps.ablation_hooks(length - 1)
    made.append(
        Race(f"{DIRECTIONS} directions taken out at the last token, behind each block, {size}",
             "a full forward of all texts for each", lambda: sweeps.ours(trials),
             lambda: sweeps.loop(hooks[SOME]), TOLERANCE, len(hooks) / len(hooks[SOME]),
             lambda answer: answer[:, SOME])
    )  # fmt: skip
    return made


def main() -> None:
    """Run all races and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", metavar="PYTHON")
    peers = parser.parse_args().peers
    torch.set_num_threads(1)
    rows = []
    for name in ("smollm2-135m-instruct", "gemma3-270m"):
        sweeps, first = Sweeps(Model.load(find_source(name), device="cpu")), not rows
        found = (race.run() for race in races(sweeps, everywhere=first))
        theirs = peer_rows(sweeps, peers) if peers and first else ()
        for row in itertools.chain(theirs, found, [attribution_row(sweeps)]):
            rows.append([name, *row])
            print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    columns = ["model", "what", "against", "answers differ by", "ours", "usual", "faster"]
    PAGE.write_text(
        "# What interventions cost\n\nWritten by `make bench`; see `benchmarks/causal.py`.\n\n"
        f"Machine: {machine()}. Answers are divergences of the next token, nats. Medians of "
        f"{REPEATS} interleaved runs.\n\n{table(columns, rows)}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
