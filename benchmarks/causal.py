"""What interventions cost, side by side in one run with a loop of full forward passes.

``make bench`` runs it and writes ``benchmarks/causal.md``. The loop is what most scripts do: a hook
on a block, a forward of all texts at once, the next block. Both sides run on the same texts and
must give the same divergences before they are timed.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.analyses import REPEATS, Race
from benchmarks.scanner import machine, table
from scanner import Edit, Model, find_source
from scanner.hooks import visiting
from scanner.sites import sites_of
from scanner.sweep import Trial, sweep

PAGE = Path(__file__).parent / "causal.md"
COUNTRIES = (
    "France", "Italy", "Spain", "Germany", "Japan", "China", "Russia", "Egypt",
    "Greece", "Turkey", "Poland", "Sweden", "Norway", "Canada", "Brazil", "India",
)  # fmt: skip
FRAME = "As everybody knows, the capital of {} is the city of"


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
            self.streams = torch.stack(list(self._heard()))
            self.intact = self._predicted()

    def _heard(self) -> Iterator[torch.Tensor]:
        """The stream of the donors after each block."""
        heard: list[torch.Tensor] = []
        sites = sites_of("resid_post", self.model.layers)
        with visiting(
            self.model.network, self.model.found, sites, lambda _, x: heard.append(x.clone())
        ):
            self.model.forward(self.donors)
        yield from heard

    def _predicted(self) -> torch.Tensor:
        logits = self.model.network(self.batch.ids, use_cache=False).logits
        return logits[:, -1].log_softmax(-1)

    @property
    def places(self) -> list[tuple[int, int]]:
        return list(np.ndindex(self.model.layers, len(self.ids[0])))

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

    def patches(self) -> list[Trial]:
        """The donor's stream after each block, at each token."""
        streams = self.streams.numpy()
        return [
            Trial(text, (Edit("resid_post", "replace", layers=[layer], positions=[at],
                              value=streams[layer, text, at]),))
            for text in range(len(self.ids))
            for layer, at in self.places
        ]  # fmt: skip

    @torch.inference_mode()
    def loop(self, hooks: list[tuple[int, Callable[..., Any]]]) -> np.ndarray:
        """A full forward of all texts for each hook, text x hook."""
        blocks = self.model.network.get_submodule(self.model.found.blocks)
        found = []
        for layer, hook in hooks:
            with _placed(blocks[layer], hook):
                edited = self._predicted()
            found.append(torch.sum(self.intact.exp() * (self.intact - edited), dim=-1))
        return torch.stack(found, dim=1).numpy()

    def lesion_hooks(self) -> list[tuple[int, Callable[..., Any]]]:
        def skip(_module: Any, args: tuple[Any, ...], _output: Any) -> Any:
            return args[0]

        return [(layer, skip) for layer in range(self.model.layers)]

    def patch_hooks(self) -> list[tuple[int, Callable[..., Any]]]:
        def patch(layer: int, at: int) -> Callable[..., Any]:
            def hook(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
                changed = output.clone()
                changed[:, at] = self.streams[layer, :, at]
                return changed

            return hook

        return [(layer, patch(layer, at)) for layer, at in self.places]


@contextmanager
def _placed(block: torch.nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = block.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def races(model: Model) -> list[Race]:
    sweeps = Sweeps(model)
    size = f"{len(sweeps.ids)} texts of {len(sweeps.ids[0])} tokens, {model.layers} blocks"
    lesions, patches = sweeps.lesions(), sweeps.patches()
    some = slice(None, None, 10)
    part = len(sweeps.patch_hooks()) / len(sweeps.patch_hooks()[some])
    return [
        Race(f"each block left out, {size}", "a full forward of all texts for each block",
             lambda: sweeps.ours(lesions), lambda: sweeps.loop(sweeps.lesion_hooks()), 1e-3),
        Race(f"the stream patched at each block and token, {size}",
             "a full forward of all texts for each block and token",
             lambda: sweeps.ours(patches), lambda: sweeps.loop(sweeps.patch_hooks()[some]), 1e-3,
             part, lambda answer: answer[:, some]),
    ]  # fmt: skip


def main() -> None:
    """Run all races and write the page."""
    torch.set_num_threads(1)
    rows = []
    for name in ("smollm2-135m-instruct", "gemma3-270m"):
        for race in races(Model.load(find_source(name), device="cpu")):
            rows.append([name, *race.run()])
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
