"""The proofs that a model goes through when it is loaded: its sites are what their names say.

Each identity is checked on this device and in this dtype, on random prompts, by magnitude and not
by direction: a deviation is the norm of the difference over the norm of what is expected. A kind
that fails one is refused, with the reason; a residual stream that fails refuses the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from scanner.batches import Batch, shared
from scanner.hooks import visiting
from scanner.sites import OUTSIDE, PAIRED, Kind, Site, SiteError, sites_of
from scanner.structure import EXACT, added_to, put_together

if TYPE_CHECKING:
    from scanner.model import Model

# Of a prompt in one batch against the same in another: sums in another order change the last bits
# (transformers#29029), and layers multiply that. The worst tokens of the embedded subjects are off
# by 2e-5, 0.08 and 0.009. What is one computation is held to `scanner.structure.EXACT`.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.15, "float16": 0.03}
# Without these there is no volume that could be trusted at all.
VITAL: tuple[Kind, ...] = ("resid_pre", "resid_post")
# Tokens of the prompts, and of the beginning that two share: one longer than the windows of toy
# models, the others within them, as texts that share tokens are.
LONG, SHORT, SHARED = 12, 7, 4


@dataclass(frozen=True)
class Proof:
    """What was found of one model on one device.

    Attributes
    ----------
    deviations : mapping of str to float
        The largest deviation of each identity.
    refused : mapping of str to str
        Kinds that failed one, and which.
    unwritable : mapping of str to str
        Kinds at which a change does not reach the logits.
    sharing : str
        Empty if texts that begin alike may share tokens; else why they may not.
    """

    deviations: Mapping[str, float]
    refused: Mapping[Kind, str]
    unwritable: Mapping[Kind, str]
    sharing: str


Heard = Mapping[Site, torch.Tensor]


def prove(model: "Model") -> Proof:
    """Check the identities of a model. See `docs/sites.md` for the list.

    Raises
    ------
    SiteError
        If the residual stream fails one: the model is not recorded.
    """
    return _Prover(model).prove()


class _Prover:
    def __init__(self, model: "Model"):
        self.model = model
        self.structure = model.found
        self.layers = model.layers
        self.exact = EXACT[getattr(torch, model.dtype)]
        self.tolerance = TOLERANCE[model.dtype]
        self.deviations: dict[str, float] = {}
        self.refused: dict[Kind, str] = {}
        self.long = model.prompt(LONG)
        self.short = model.prompt(SHORT, seed=1)
        # Another end of the same beginning.
        vocabulary = model.vocabulary
        ends = ((one + 1) % vocabulary for one in self.short[SHARED:])
        self.other = [*self.short[:SHARED], *ends]
        # Logits are compared where the shared beginning ends and at the end: a vocabulary is large.
        self.columns = torch.tensor([SHARED - 1, SHORT - 1], device=model.device)
        kinds = self.structure.kinds
        self.plain: tuple[Kind, ...] = tuple(kind for kind in kinds if kind not in PAIRED)
        self.paired: tuple[Kind, ...] = tuple(kind for kind in kinds if kind in PAIRED)

    @torch.inference_mode()
    def prove(self) -> Proof:
        model = self.model
        batch = model.batch([self.short])
        bare = self._logits(batch)
        heard = self._heard(batch, self.plain)
        self._hold("hooks_leave_logits", VITAL, _off(bare, heard[Site("logits")]), 0.0)
        self._prove_sums(heard)
        self._prove_projections(heard)
        both = self._heard(model.batch([self.long, self.short, self.other]), self.plain)
        self._prove_past(both)
        self._prove_batches(heard, both)
        self._write_back(batch, bare, self.plain)
        with model.listening(self.paired):
            self._prove_attention()
            unwritable = self._nudge()
        return Proof(self.deviations, self.refused, unwritable, self._sharing(heard, both))

    def _hold(
        self, name: str, kinds: Sequence[Kind], deviation: float, allowed: float | None = None
    ) -> None:
        """Note a deviation; refuse the kinds, or the model, if it is too large."""
        allowed = self.exact if allowed is None else allowed
        self.deviations[name] = max(deviation, self.deviations.get(name, 0.0))
        if deviation <= allowed:  # NaN fails
            return
        why = f"'{name}' fails by {deviation:.2g} where {allowed:.2g} is allowed"
        if set(kinds) & set(VITAL):
            raise SiteError(
                f"subject '{self.model.name}' on {self.model.device} in {self.model.dtype}: the "
                f"identity {why}; its residual stream is not recorded"
            )
        for kind in kinds:
            self.refused.setdefault(kind, f"the identity {why}")

    def _has(self, *kinds: Kind) -> bool:
        return all(kind in self.structure.kinds for kind in kinds)

    def _stack(self, heard: Heard, kind: Kind) -> torch.Tensor:
        return torch.stack([heard[site] for site in sites_of(kind, self.layers)])

    def _heard(self, batch: Batch, kinds: Sequence[Kind]) -> Heard:
        return self.model.activations(batch, kinds, columns=self.columns)

    def _logits(self, batch: Batch, columns: torch.Tensor | None = None) -> torch.Tensor:
        columns = self.columns if columns is None else columns
        logits = self.model.forward(batch, head=True, columns=columns)
        assert logits is not None
        return logits

    def _prove_sums(self, heard: Heard) -> None:
        """The parts add up to the whole, and blocks hand on to the next."""
        pre, post = self._stack(heard, "resid_pre"), self._stack(heard, "resid_post")
        self._hold("blocks_chain", VITAL, _off(post[:-1], pre[1:]), 0.0)
        if self._has("attn_out_post", "mlp_out_post"):
            attention, mlp = (self._stack(heard, k) for k in ("attn_out_post", "mlp_out_post"))
            change = post.float() - pre.float()
            off = min(
                _off(change, made.float() - pre.float())
                for made in put_together(pre, attention, mlp, self.structure.multiplier)
            )
            self._hold("parts_sum", ("attn_out_post", "mlp_out_post"), off)
            if self._has("resid_mid"):
                middle = self._stack(heard, "resid_mid")
                made = added_to(middle, mlp, self.structure.multiplier)
                off = _off(post.float() - middle.float(), made.float() - middle.float())
                self._hold("middle_sums", ("resid_mid",), off)
        if self._has("final_norm"):
            port = self.structure.port(Site("final_norm"))
            normed = self.model.network.get_submodule(port.path)(post[-1])
            self._hold("norm_ends", ("final_norm",), _off(heard[Site("final_norm")], normed))

    def _prove_projections(self, heard: Heard) -> None:
        """What enters the last projection of a part gives what the part returns."""
        pairs: tuple[tuple[str, Kind, Kind], ...] = (
            ("neurons_project", "mlp_act", "mlp_out"), ("heads_project", "z", "attn_out")
        )  # fmt: skip
        for name, entering, leaving in pairs:
            if not self._has(entering, leaving):
                continue
            for layer in range(self.layers):
                port = self.structure.port(Site(entering, layer))
                given, returned = heard[Site(entering, layer)], heard[Site(leaving, layer)]
                rows = given.reshape(*given.shape[:2], -1)
                made = self.model.network.get_submodule(port.path)(rows)
                off = _off(returned, made.reshape(returned.shape))
                self._hold(name, (entering, leaving), off)

    def _prove_attention(self) -> None:
        """Probabilities times values are what enters the output projection."""
        if not self.paired:
            return
        batch = self.model.batch([self.long])
        parts: tuple[Kind, ...] = ("value", "z")
        wanted: list[Kind] = [*self.paired, *(kind for kind in parts if self._has(kind)), "logits"]
        try:
            heard = self._heard(batch, wanted)
        except SiteError as error:
            for kind in self.paired:
                self.refused[kind] = str(error)
            return
        self._write_back(batch, heard[Site("logits")], self.paired)
        for layer in range(self.layers):
            scores, probs = (heard[Site(kind, layer)].float() for kind in PAIRED)
            # A sink takes a share of the softmax that no key gets.
            given = probs / probs.sum(-1, keepdim=True)
            self._hold("scores_to_probs", PAIRED, _off(given, scores.softmax(-1)))
            self._hold("probs_see_the_past", PAIRED, float(probs.triu(1).abs().max()), 0.0)
            if self._has("value", "z"):
                value = heard[Site("value", layer)].float()
                repeats = probs.shape[1] // value.shape[2]
                value = value.repeat_interleave(repeats, dim=2)
                made = torch.einsum("bhqk,bkhu->bqhu", probs, value)
                z = heard[Site("z", layer)].float()
                off = _off(z, made) if z.shape == made.shape else float("inf")
                self._hold("probs_times_value", ("attn_probs", "value"), off)

    def _prove_past(self, both: Heard) -> None:
        """Later tokens do not reach earlier ones."""
        for site, rows in both.items():
            seen = 1 if site.kind == "logits" else SHARED
            off = _off(rows[1, :seen], rows[2, :seen])
            self._hold("future_leaves_past", (site.kind,), off)

    def _prove_batches(self, heard: Heard, both: Heard) -> None:
        """A prompt alone equals the prompt in a padded batch."""
        for site, alone in heard.items():
            off = _off_by_token(alone[0], both[site][1, :SHORT])
            self._hold("alone_equals_batched", (site.kind,), off, self.tolerance)

    def _write_back(self, batch: Batch, bare: torch.Tensor, kinds: Sequence[Kind]) -> None:
        """Writing back what was read leaves the logits."""
        sites = [site for kind in kinds for site in sites_of(kind, self.layers)]
        with visiting(self.model.network, self.structure, sites, lambda _site, a: a.clone()):
            off = _off(bare, self._logits(batch))
        if off == 0 or len(kinds) == 1:
            self._hold("writing_back_leaves_logits", kinds, off, 0.0)
            return
        others = set(self.refused)
        for kind in kinds:  # which of them it was
            self._write_back(batch, bare, (kind,))
        if set(self.refused) == others:  # none alone
            self._hold("writing_back_leaves_logits", kinds, off, 0.0)

    def _nudge(self) -> dict[Kind, str]:
        """Scale each kind up in a row of its own, in the middle layer; see which logits move."""
        kinds: list[Kind] = [*self.plain, *(k for k in self.paired if k not in self.refused)]
        rows = self.model.batch([self.short[:SHARED]] * (len(kinds) + 1))
        middle = self.layers // 2
        sites = {
            Site(kind) if kind in OUTSIDE else Site(kind, middle): row
            for row, kind in enumerate(kinds)
        }

        def nudge(site: Site, activation: torch.Tensor) -> torch.Tensor:
            moved = activation.clone()
            moved[sites[site]] *= 1.5
            return moved

        with visiting(self.model.network, self.structure, list(sites), nudge):
            logits = self._logits(rows, self.columns[:1])
        return {
            site.kind: f"a change of {site} does not reach the logits"
            for site, row in sites.items()
            if torch.equal(logits[-1], logits[row])
        }

    def _sharing(self, heard: Heard, both: Heard) -> str:
        """Whether prompts that share what they begin with equal the prompts alone."""
        model = self.model
        # Logits follow from what enters the vocabulary head.
        without = {*self.refused, "logits"}
        kinds: list[Kind] = [kind for kind in self.plain if kind not in without]
        texts = sorted([self.short, self.other])
        batch = shared([texts], filler=model.filler, dtype=model.network.dtype).to(model.device)
        try:
            together = model.activations(batch, kinds)
        except Exception as error:  # whatever a family does with a mask or positions it cannot use
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            return f"its forward pass takes no mask that is a tree of tokens ({said})"
        worst = 0.0
        for text, columns in zip(texts, batch.columns, strict=True):
            for site, rows in together.items():
                alone = heard[site][0] if text == self.short else both[site][2, :SHORT]
                again = rows[0, torch.from_numpy(columns).to(rows.device)]
                worst = max(_off_by_token(alone, again), worst)  # in this order NaN stays
        self.deviations["alone_equals_shared"] = worst
        if worst <= self.tolerance:
            return ""
        return f"a prompt that shares its beginning is off by {worst:.2g} from the prompt alone"


@torch.inference_mode()
def off_when_shared(model: "Model", text: Sequence[int]) -> float:
    """How far a text beside itself cut short is from the text alone, at its worst token.

    Of a length that the proofs did not see: attention may be computed otherwise there.
    """
    row = [[*text[: len(text) // 2], model.filler], text]
    batch = shared([row], filler=model.filler, dtype=model.network.dtype).to(model.device)
    last = Site("resid_post", model.layers - 1)
    alone = model.activations(model.batch([text]), ("resid_post",))[last][0]
    columns = torch.from_numpy(batch.columns[1]).to(alone.device)
    return _off(alone, model.activations(batch, ("resid_post",))[last][0, columns])


def _off(expected: torch.Tensor, found: torch.Tensor) -> float:
    """How far one tensor is from another, at the worst token.

    The norm of the difference over the norm of what is expected, token by token (and head by head):
    a first token may be a hundred times as large as the others, and would hide them.
    """
    if not expected.numel():  # a single block hands nothing on
        return 0.0
    if expected.shape != found.shape:
        return float("inf")
    # A module that is asked by itself may compute on another device.
    a, b = expected.float(), found.to(expected.device).float()
    size = a.norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    return float(((a - b).norm(dim=-1) / size).max())


def _off_by_token(expected: torch.Tensor, found: torch.Tensor) -> float:
    """The same of position x dimensions, all heads together: one may hold next to nothing."""
    return _off(expected.flatten(1), found.flatten(1))
