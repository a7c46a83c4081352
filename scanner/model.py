"""A transformers model in the scanner: loaded, proved, listened to, acted on, and its twins."""

import hashlib
import inspect
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from scanner.aliases import Place, resolve
from scanner.batches import LONG_ROW_TOKENS, Batch, padded
from scanner.device import DeviceName, DtypeName, attention_implementation, best_device
from scanner.hooks import Visitor, visiting
from scanner.identities import TOLERANCE, Proof, off_when_shared, prove
from scanner.interventions import Applied, Edit, applying, check_edit
from scanner.placement import Placement, away, divide_alike, load_divided, parts, weight
from scanner.quantised import Bits, plain, quantise, unrounded
from scanner.sites import PAIRED, Kind, Site, SiteError, sites_of
from scanner.sources import Source
from scanner.structure import Structure, explore, find_blocks

# What surprisal is measured on: plain words, so that no model that was trained is at chance, and
# written for this, so that none was trained on them.
PASSAGE = (
    "The old man walked down to the harbour every morning to look at the boats. In winter there "
    "were only a few of them, because most of the fishermen had gone south with their families. "
    "When the weather was good he sat on a bench by the water and talked to whoever came along. "
    "Most people liked him. He knew the name of every street and of every dog, and he could tell "
    "from the colour of the sky whether it was going to rain before the evening. Only about his "
    "brother he never said a word. They had built a boat together when they were young, and one "
    "of them had sold it without asking the other. Nobody in the town remembered which of the two "
    "it had been, or what it had cost, but everyone knew that they had not spoken since. Then, on "
    "a cold morning in March, a letter arrived from the hospital. The old man read it twice, put "
    "on his best coat, and asked the woman at the post office how long the train to the capital "
    "would take. She told him that it took three hours, and that he would have to hurry."
)
# The random prompt that sites are found and proved on. Longer than the windows of toy models.
PROMPT = 12
# Tokens whose embeddings are held at once.
EMBEDDINGS = 8192


@dataclass(frozen=True)
class Model:
    """A causal language model on a device, ready to be recorded.

    Attributes
    ----------
    source : Source
        Where weights, configuration and tokenizer come from.
    network : transformers.PreTrainedModel
        The model with its vocabulary head, in evaluation mode.
    tokenizer : transformers.PreTrainedTokenizerFast
    device, dtype : str
    seed : int or None
        None for the trained model; the seed of its fresh weights for an untrained twin.
    placement : Placement or None
        Where its parts lie; None if the device holds it whole.
    bits : str or None
        What the weights of its blocks are rounded to; None if they are in `dtype`.
    """

    source: Source
    network: Any
    tokenizer: Any
    device: DeviceName
    dtype: DtypeName
    seed: int | None = None
    placement: Placement | None = None
    bits: Bits | None = None

    @classmethod
    def load(
        cls,
        source: Source,
        *,
        dtype: DtypeName = "float32",
        device: DeviceName | None = None,
        placement: Placement | None = None,
        bits: Bits | None = None,
    ) -> "Model":
        """Load a model and its tokenizer from a local folder, without remote code or pickles.

        Parameters
        ----------
        source : Source
        dtype : str
            Of computing.
        device : str, optional
            The best there is by default; with a placement, that tells it.
        placement : Placement, optional
            Of a model that is larger than one device.
        bits : str, optional
            What the weights of blocks are rounded to.

        Raises
        ------
        SiteError
            If it cannot be laid out or rounded like that, or its tokenizer gives no offsets.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if placement is not None and bits is not None:
            raise SiteError(
                f"subject '{source.name}': a quantised model lies on one device; leave out "
                "`device_map`, or `weights`"
            )
        device = device or (best_device() if placement is None else placement.device)

        def load(**where: Any) -> Any:
            return AutoModelForCausalLM.from_pretrained(
                source.folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                attn_implementation=attention_implementation(device),
                **unrounded(source.folder),
                **where,
            )

        with quietly():
            network = load() if placement is None else load_divided(load, placement, source.name)
            tokenizer = AutoTokenizer.from_pretrained(
                source.folder, trust_remote_code=False, local_files_only=True
            )
        if not tokenizer.is_fast:
            raise SiteError(
                f"subject '{source.name}': its tokenizer gives no character offsets, "
                "so targets cannot be found"
            )
        model = cls(source, network.eval(), tokenizer, device, dtype, None, placement, bits)
        return model._on_device()

    def twin(self, seed: int) -> "Model":
        """The same architecture with fresh weights, initialised as transformers initialises it.

        Where the model lies in parts or has rounded weights, its twin does, too.

        Parameters
        ----------
        seed : int
            Seed of the initialisation. It runs on the CPU, so that a seed names the same weights
            whatever the device.
        """
        from transformers import AutoModelForCausalLM

        with torch.random.fork_rng(devices=[]), quietly():
            torch.manual_seed(seed)
            network: Any = AutoModelForCausalLM.from_config(
                self.network.config,
                dtype=getattr(torch, self.dtype),
                attn_implementation=attention_implementation(self.device),
            )
            if self.placement is not None and self.parts:
                network = divide_alike(network, self.network, self.placement)
        return replace(self, network=network.eval(), seed=seed)._on_device()

    def _on_device(self) -> "Model":
        """The same, rounded if it is to be, and on its device if it is not in parts."""
        if self.bits is not None:
            blocks = find_blocks(self.base, self.layers)
            quantise(blocks, self.bits, f"subject '{self.name}'")
        if not self.parts:
            self.network.to(self.device)
        return self

    @property
    def parts(self) -> dict[str, int | str]:
        """Where each part lies, if it lies in parts."""
        return parts(self.network)

    def check_weights(self, doing: str) -> None:
        """Refuse what needs the weights themselves, if they are not there as they are.

        Parameters
        ----------
        doing : str
            Begins a sentence, ``gradients of weights need``.

        Raises
        ------
        SiteError
        """
        elsewhere = away(self.network)
        if elsewhere:
            raise SiteError(
                f"{self.name}: {doing} all weights at once, and {len(elsewhere)} of them lie on "
                f"the disk or in the CPU's memory but while they are used ({elsewhere[0]} the "
                "first); give it devices that hold it whole"
            )
        if self.bits is not None:
            raise SiteError(
                f"{self.name}: {doing} weights that can change by little, and those of its blocks "
                f"are rounded to {self.bits}; leave out `weights: {self.bits}`"
            )

    def cascade(self, firsts: Sequence[int], *, seed: int) -> Iterator["Model"]:
        """The same model with fresh weights in its last blocks, which end the way of each token.

        Cascading randomisation (Adebayo et al. 2018); what stands outside the blocks is left.

        Parameters
        ----------
        firsts : sequence of int
            The first block with fresh weights, ascending; the number of blocks for none.
        seed : int
            As of `twin`.

        Yields
        ------
        Model
            Good until the next is asked for, which is made of it.

        Raises
        ------
        SiteError
            If weights are not there as they are (`check_weights`).
        """
        self.check_weights("fresh weights block by block need")
        mixed = self.twin(seed)
        path = self.structure.blocks
        fresh, taught = (one.network.get_submodule(path) for one in (mixed, self))
        trained = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, weight in mixed.network.named_parameters():
                if not name.startswith(f"{path}."):
                    weight.copy_(trained[name])
            for before, first in pairwise((0, *firsts)):
                for layer in range(before, first):
                    fresh[layer].load_state_dict(taught[layer].state_dict())
                yield mixed

    @property
    def name(self) -> str:
        return self.source.name if self.seed is None else f"{self.source.name}.twin{self.seed}"

    @property
    def base(self) -> nn.Module:
        """The network without its vocabulary head."""
        return self.network.base_model

    @property
    def layers(self) -> int:
        return self.network.config.get_text_config().num_hidden_layers

    @property
    def width(self) -> int:
        return self.network.config.get_text_config().hidden_size

    @property
    def vocabulary(self) -> int:
        return self.network.config.get_text_config().vocab_size

    @cached_property  # asked for each text
    def context(self) -> int | None:
        """Tokens that the model was built for; None where there is no limit."""
        return getattr(self.network.config.get_text_config(), "max_position_embeddings", None)

    @property
    def window(self) -> int | None:
        """Tokens that the narrowest attention sees, where the configuration tells of one."""
        config = self.network.config.get_text_config()
        names = ("sliding_window", "window_size", "attention_window", "attention_chunk_size")
        found = [getattr(config, name, None) for name in names]
        return min((one for one in found if isinstance(one, int) and one > 0), default=None)

    @property
    def attention(self) -> str:
        """How transformers computes its attention: ``sdpa``, ``eager``."""
        return self.network.config._attn_implementation

    @cached_property
    def found(self) -> Structure:
        """Its sites, found on a random prompt and not proved yet.

        Raises
        ------
        SiteError
            If it has no blocks that a stream runs through.
        """
        batch = self.batch([self.prompt(PROMPT)])
        return explore(self.network, self.base, self.layers, batch.ids)

    @cached_property
    def proof(self) -> Proof:
        """The identities of its sites, checked on this device and in this dtype.

        Raises
        ------
        SiteError
            If the residual stream fails one.
        """
        return prove(self)

    def sharing(self, longest: Sequence[int]) -> str:
        """Why texts up to a length may not share the tokens they begin with; empty if they may.

        Tried with the longest, unless one as long was tried before.

        Parameters
        ----------
        longest : sequence of int
            Token ids.
        """
        if self.proof.sharing:
            return self.proof.sharing
        said = f"its longest text ({len(longest)} tokens)"
        if len(longest) > LONG_ROW_TOKENS:
            return f"{said} is longer than {LONG_ROW_TOKENS}, whose mask would be too large"
        if self.window is not None and len(longest) > self.window:
            return f"{said} is longer than the window of {self.window}"
        if len(longest) > self._shared_up_to.get(self.attention, 0):
            off = off_when_shared(self, longest)
            if not off <= TOLERANCE[self.dtype]:
                return f"{said} is off by {off:.2g} when it shares tokens"
            self._shared_up_to[self.attention] = len(longest)
        return ""

    @cached_property
    def _shared_up_to(self) -> dict[str, int]:
        """The length that texts were found to be the same at, by the way attention is computed."""
        return {}

    @cached_property
    def structure(self) -> Structure:
        """Its sites, those refused that failed an identity."""
        return self.found.without(self.proof.refused)

    def prompt(self, length: int, *, seed: int = 0) -> list[int]:
        """Random token ids."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, self.vocabulary, (length,), generator=generator).tolist()

    @cached_property
    def weights_sha256(self) -> str:
        """sha256 over names, shapes and bytes of the parameters, as they lie on the device."""
        hasher = hashlib.sha256()
        # Rounded weights cannot be taken out of the graph in inference mode.
        for name, held in sorted(self.network.state_dict(keep_vars=True).items()):
            for inside, parameter in plain(weight(self.network, name) if held.is_meta else held):
                hasher.update(f"{name}{inside} {parameter.dtype} {tuple(parameter.shape)}".encode())
                read = parameter.detach().cpu().contiguous()
                hasher.update(read.view(torch.uint8).numpy().data)
        return hasher.hexdigest()

    @cached_property
    @torch.inference_mode()
    def surprisal(self) -> float:
        """Mean surprisal of a passage of English, nats a token; guessing gives ln(`vocabulary`)."""
        ids = self.tokenizer(PASSAGE, verbose=False)["input_ids"][: self.context]
        logits = self.forward(self.batch([ids]), head=True)
        assert logits is not None
        following = torch.tensor(ids[1:], device=logits.device)
        return float(torch.nn.functional.cross_entropy(logits[0, :-1].float(), following))

    @cached_property
    def bits_per_byte(self) -> float:
        """The same surprisal for each byte of the passage: comparable across tokenizers."""
        found = self.tokenizer(PASSAGE, verbose=False, return_offsets_mapping=True)
        ends = found["offset_mapping"][: self.context]
        read = PASSAGE[ends[0][1] : ends[-1][1]].encode()  # the first token is given, not told
        return self.surprisal * (len(ends) - 1) / (math.log(2) * len(read))

    @cached_property
    @torch.no_grad()
    def mean_embedding(self) -> torch.Tensor:
        """Of all tokens of the vocabulary, as the site ``embeddings`` has them: unit.

        Raises
        ------
        SiteError
            If the model does not have the site.
        """
        module = self.network.get_submodule(self.structure.port(Site("embeddings")).path)
        every = torch.arange(self.vocabulary, device=self.device).split(EMBEDDINGS)
        sums = torch.stack([module(some[None])[0].float().sum(0) for some in every])
        return (sums.sum(0) / self.vocabulary).to(self.network.dtype)

    def initialisation(self) -> str:
        """How fresh weights are drawn: a twin is as good a control as this is like training's."""
        spread = getattr(self.network.config.get_text_config(), "initializer_range", None)
        return f"transformers _init_weights, initializer_range {spread}"

    @property
    def filler(self) -> int:
        """The token that rows are filled up with; nothing that is kept can see it."""
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else pad

    def batch(self, ids: Sequence[Sequence[int]]) -> Batch:
        """Token ids as a batch on the device, padded on the right."""
        return padded(ids, filler=self.filler).to(self.device)

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Compute attention step by step, so that its scores and probabilities can be heard."""
        before = self.attention
        if before == "eager":
            yield
            return
        self._compute_attention("eager")
        try:
            yield
        finally:
            self._compute_attention(before)

    def _compute_attention(self, way: str) -> None:
        with quietly():
            self.network.set_attn_implementation(way)
        if self.attention != way:  # families older than the setting read it at each call (Falcon)
            self.network.config._attn_implementation = way

    def listening(self, kinds: Sequence[Kind]):
        """The way to compute attention that these kinds need: a context manager."""
        return self.eager() if set(kinds) & set(PAIRED) else _as_it_is()

    def forward(
        self, batch: Batch, *, head: bool = False, columns: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """One forward pass. Hooks, if any, hear it.

        Parameters
        ----------
        batch : Batch
            On the device.
        head : bool
            Whether the vocabulary head is run.
        columns : torch.Tensor, optional
            The columns whose logits are wanted; all by default. The head is run on no others where
            the model can choose.

        Returns
        -------
        torch.Tensor or None
            Logits, row x column x vocabulary, if the head was run.
        """
        given: dict[str, Any] = {
            "input_ids": batch.ids, "attention_mask": batch.mask, "use_cache": False
        }  # fmt: skip
        if batch.positions is not None:
            given["position_ids"] = batch.positions
        if not head:
            self.base(**given)
            return None
        if columns is not None and self.chooses_columns:
            given["logits_to_keep"] = columns
        logits = self.network(**given).logits
        return logits if columns is None or self.chooses_columns else logits[:, columns]

    @cached_property
    def chooses_columns(self) -> bool:
        """Whether the vocabulary head can be run on some columns only."""
        return "logits_to_keep" in inspect.signature(self.network.forward).parameters

    @torch.inference_mode()
    def activations(
        self, batch: Batch, kinds: Sequence[Kind], *, columns: torch.Tensor | None = None
    ) -> Mapping[Site, torch.Tensor]:
        """Activations of every layer at every token.

        Parameters
        ----------
        batch : Batch
            On the device.
        kinds : sequence of str
            Kinds of site. ``attn_scores`` and ``attn_probs`` have attention computed step by step.
        columns : torch.Tensor, optional
            The columns whose logits are wanted; all by default.

        Returns
        -------
        mapping of Site to torch.Tensor
            row x column x the dimensions of the kind (row x head x query x key for attention
            weights), on the device, in the dtype of the model.

        Raises
        ------
        SiteError
            If the model does not have a kind, or a site did not fire once.
        """
        heard: dict[Site, torch.Tensor] = {}

        def keep(site: Site, activation: torch.Tensor) -> None:
            heard[site] = activation.clone()

        with self.listening(kinds), self.visiting(kinds, keep):
            logits = self.forward(batch, head="logits" in kinds, columns=columns)
        if logits is not None and columns is not None:
            heard[Site("logits")] = logits
        return heard

    def resolve(self, name: str) -> Place:
        """A site by the name that another tool has for it, or a module path of this model.

        Raises
        ------
        SiteError
            If it is none of this model's sites; the message says what comes near.
        """
        place = resolve(name, ports=self.structure.names)
        for site in place.sites(self.layers):
            self.structure.port(site)
        return place

    def visiting(self, kinds: Sequence[Kind], visitor: Visitor, *, gather: bool = True):
        """Show all layers of some kinds to a visitor: a context manager (`hooks.visiting`)."""
        sites = [site for kind in kinds for site in sites_of(kind, self.layers)]
        return visiting(self.network, self.found, sites, visitor, gather=gather)

    @contextmanager
    def intervene(self, edits: Sequence[Edit]) -> Iterator[Applied]:
        """Change activations in every forward pass of the body.

        Parameters
        ----------
        edits : sequence of Edit
            Applied in the order of the model's computation. With none, nothing is touched.

        Yields
        ------
        Applied
            How much each edit changed: no effect is to be believed of one that moved nothing.

        Raises
        ------
        SiteError
            If the model lacks a site, or it cannot be written there.
        """
        kinds: list[Kind] = [edit.kind for edit in edits]
        for edit in edits:
            check_edit(edit, self.structure, self.proof.unwritable)
        with self.listening(kinds), applying(self.network, self.structure, edits) as applied:
            yield applied


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def quietly():
    """Keep transformers' own bars and advice off a terminal that has ours."""
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("transformers", "accelerate")]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars and sys.stderr.isatty():
            transformers_logging.enable_progress_bar()
