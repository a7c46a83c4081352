"""A transformers model in the scanner: loaded, proved, listened to, and its untrained twins."""

import hashlib
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from scanner.device import DeviceName, attention_implementation, best_device
from scanner.hooks import listening
from scanner.sites import Kind, Site, SiteError, find_blocks
from scanner.sources import Source

DtypeName = Literal["float32", "bfloat16", "float16"]

# Batched against alone, relative to the largest activation of the layer. Padding and batch size
# change the order of sums, and with it the last bits (transformers#29029).
BATCH_TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 3e-3}


@dataclass(frozen=True)
class Batch:
    """Tokenised stimuli of one forward pass, right-padded.

    Attributes
    ----------
    ids, mask : torch.Tensor
        batch x position, integers.
    """

    ids: torch.Tensor
    mask: torch.Tensor


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
    """

    source: Source
    network: Any
    tokenizer: Any
    device: DeviceName
    dtype: DtypeName
    seed: int | None = None

    @classmethod
    def load(
        cls, source: Source, *, dtype: DtypeName = "float32", device: DeviceName | None = None
    ) -> "Model":
        """Load a model and its tokenizer from a local folder, without remote code or pickles."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = device or best_device()
        with _quietly():
            network: Any = AutoModelForCausalLM.from_pretrained(
                source.folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                attn_implementation=attention_implementation(device),
            )
            tokenizer = AutoTokenizer.from_pretrained(
                source.folder, trust_remote_code=False, local_files_only=True
            )
        if not tokenizer.is_fast:
            raise SiteError(
                f"subject '{source.name}': its tokenizer gives no character offsets, "
                "so targets cannot be found"
            )
        return cls(source, network.eval().to(device), tokenizer, device, dtype)

    def twin(self, seed: int) -> "Model":
        """The same architecture with fresh weights, initialised as transformers initialises it.

        Parameters
        ----------
        seed : int
            Seed of the initialisation. It runs on the CPU, so that a seed names the same weights
            whatever the device.
        """
        from transformers import AutoModelForCausalLM

        with torch.random.fork_rng(devices=[]), _quietly():
            torch.manual_seed(seed)
            network: Any = AutoModelForCausalLM.from_config(
                self.network.config,
                dtype=getattr(torch, self.dtype),
                attn_implementation=attention_implementation(self.device),
            )
        return Model(
            self.source,
            network.eval().to(self.device),
            self.tokenizer,
            self.device,
            self.dtype,
            seed,
        )

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
    def context(self) -> int:
        """Tokens that the model was built for."""
        return self.network.config.get_text_config().max_position_embeddings

    @property
    def blocks(self) -> nn.ModuleList:
        return find_blocks(self.base, self.layers)

    def weights_digest(self) -> str:
        """sha256 over names, shapes and bytes of the parameters, as they lie on the device."""
        hasher = hashlib.sha256()
        for name, parameter in sorted(self.network.state_dict().items()):
            hasher.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
            hasher.update(parameter.cpu().contiguous().view(torch.uint8).numpy().data)
        return hasher.hexdigest()

    def initialisation(self) -> str:
        """How fresh weights are drawn: a twin is as good a control as this is like training's."""
        spread = getattr(self.network.config.get_text_config(), "initializer_range", None)
        return f"transformers _init_weights, initializer_range {spread}"

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        """Token ids and character offsets of each text, the tokenizer's special tokens included."""
        encoded = self.tokenizer(list(texts), return_offsets_mapping=True)
        return encoded["input_ids"], encoded["offset_mapping"]

    def batch(self, ids: Sequence[Sequence[int]]) -> Batch:
        """Pad token ids on the right, so that positions and past activations stay."""
        longest = max(map(len, ids))
        filler = self.tokenizer.pad_token_id
        padded = torch.full((len(ids), longest), 0 if filler is None else filler)
        mask = torch.zeros((len(ids), longest), dtype=torch.long)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return Batch(padded.to(self.device), mask.to(self.device))

    @torch.inference_mode()
    def activations(
        self, batch: Batch, kinds: Sequence[Kind], positions: torch.Tensor
    ) -> Mapping[Kind, torch.Tensor]:
        """Activations of every layer at one position of each stimulus.

        Parameters
        ----------
        batch : Batch
        kinds : sequence of str
            Kinds of site.
        positions : torch.Tensor
            One position for each row of the batch, on the CPU.

        Returns
        -------
        mapping of str to torch.Tensor
            For each kind batch x layer x unit, on the CPU, in the dtype of the model.
        """
        rows = torch.arange(len(positions), device=self.device)
        columns = positions.to(self.device)
        heard: dict[Site, torch.Tensor] = {}

        def keep(site: Site, states: torch.Tensor) -> None:
            # Indexing with tensors copies, so later in-place work of the model cannot reach it.
            heard[site] = states[rows, columns]

        with listening(self.blocks, kinds, keep):
            self.base(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
        return {
            kind: torch.stack([heard[Site(kind, layer)] for layer in range(self.layers)], 1).cpu()
            for kind in kinds
        }

    def prove(self) -> dict[str, float]:
        """Check on this device that the sites are what their names say.

        On random token ids: hooks leave the logits bit-equal; what leaves a block enters the next;
        changed future tokens leave the past unchanged; a prompt alone equals the prompt in a
        padded batch.

        Returns
        -------
        dict of str to float
            The largest deviation found for each identity, relative to the layer's largest value.

        Raises
        ------
        SiteError
            If an identity does not hold; the message names it.
        """
        generator = torch.Generator().manual_seed(0)
        vocabulary = self.network.config.get_text_config().vocab_size
        long, short = (
            torch.randint(0, vocabulary, (length,), generator=generator).tolist()
            for length in (12, 7)
        )
        changed = [*long[:7], *((token + 1) % vocabulary for token in long[7:])]
        alone, together = self.batch([short]), self.batch([long, short])
        kinds: tuple[Kind, ...] = ("resid_pre", "resid_post")
        middle = torch.tensor([6])
        tolerance = BATCH_TOLERANCE[self.dtype]

        single = self.activations(alone, kinds, middle)
        padded = self.activations(together, kinds, torch.tensor([6, 6]))
        past = self.activations(self.batch([long]), ("resid_post",), middle)["resid_post"]
        future = self.activations(self.batch([changed]), ("resid_post",), middle)["resid_post"]
        found = {
            "hooks_leave_logits": self._hook_effect(alone),
            "blocks_chain": _deviation(single["resid_post"][:, :-1], single["resid_pre"][:, 1:]),
            "future_leaves_past": _deviation(past, future),
            "alone_equals_batched": _deviation(single["resid_post"][0], padded["resid_post"][1]),
        }
        allowed = {"hooks_leave_logits": 0.0, "blocks_chain": 0.0, "future_leaves_past": tolerance,
                   "alone_equals_batched": tolerance}  # fmt: skip
        for name, deviation in found.items():
            if not deviation <= allowed[name]:
                raise SiteError(
                    f"subject '{self.source.name}' on {self.device} in {self.dtype}: the identity "
                    f"'{name}' fails by {deviation:.2g} where {allowed[name]:.2g} is allowed; "
                    "its residual stream is not recorded"
                )
        return found

    @torch.inference_mode()
    def _hook_effect(self, batch: Batch) -> float:
        bare = self.network(input_ids=batch.ids, attention_mask=batch.mask).logits
        with listening(self.blocks, ("resid_pre", "resid_post"), lambda _site, _states: None):
            hooked = self.network(input_ids=batch.ids, attention_mask=batch.mask).logits
        return _deviation(bare, hooked)


def _deviation(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference of a row x layer x unit from another, relative to the layer's largest
    value in that row: later layers may be a thousand times as large as the first."""
    if not a.numel():  # a single block hands nothing on
        return 0.0
    a, b = a.float(), b.float()
    return float(((a - b).abs().amax(-1) / a.abs().amax(-1)).max())


@contextmanager
def _quietly():
    """Keep transformers' own bars and advice off a terminal that has ours."""
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("transformers")
    level, bars = logger.level, transformers_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars and sys.stderr.isatty():
            transformers_logging.enable_progress_bar()
