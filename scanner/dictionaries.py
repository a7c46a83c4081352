"""Sparse autoencoders: activations told as a few of many directions.

A dictionary has more features than a site has units, and few of them are active at a time (Bricken
et al. 2023; Cunningham et al. 2023). sae-lens trains them and reads those that others released; it
is an extra, and nothing but this file imports it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch

from scanner.sites import Site, SiteError

Architecture = Literal["topk", "jumprelu"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
# Tokens of a step of training, and of what is encoded at once.
STEP = 512
ENCODED = 4096
# Of Adam; falls to a tenth over the last fifth of the steps.
RATE = 1e-3


class DictionaryError(ValueError):
    """A dictionary that cannot be had, or is not one of this site; the message says what to do."""


@dataclass(frozen=True)
class Training:
    """How a dictionary is trained.

    Attributes
    ----------
    architecture : {'topk', 'jumprelu'}
        The features of largest activation (Gao et al. 2024), or those above a threshold of their
        own (Rajamanoharan et al. 2024), whose number is held near `active`.
    width : int
        Features.
    active : int
        Of them, at a token.
    tokens : int
        Read in training; fewer than that many are read again and again.
    seed : int
    """

    architecture: Architecture = "topk"
    width: int = 1024
    active: int = 16
    tokens: int = 200_000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A sparse autoencoder, ready to read.

    Attributes
    ----------
    sae : sae_lens.SAE
        Of inference.
    """

    sae: Any

    @property
    def width(self) -> int:
        """Units of the site that it reads."""
        return int(self.sae.cfg.d_in)

    @property
    def directions(self) -> np.ndarray:
        """What each feature adds to the site: feature x unit, of length 1; 0 for one of none."""
        written = self.sae.W_dec.detach().cpu().float().numpy()
        length = np.linalg.norm(written, axis=1, keepdims=True)
        return np.divide(written, length, out=np.zeros_like(written), where=length > 0)

    def encode(self, activations: np.ndarray) -> np.ndarray:
        """Features of activations.

        Parameters
        ----------
        activations : numpy.ndarray
            row x unit.

        Returns
        -------
        numpy.ndarray
            row x feature, float32: how far along each of `directions`; so dictionaries that write
            the same with longer directions and smaller activations read the same.
        """
        length = self.sae.W_dec.detach().norm(dim=1)
        return self._by_parts(activations, lambda some: self.sae.encode(some) * length)

    def rebuilt(self, activations: np.ndarray) -> np.ndarray:
        """What the dictionary makes of activations, row x unit, float32."""
        return self._by_parts(activations, lambda some: self.sae.decode(self.sae.encode(some)))

    def _by_parts(
        self, activations: np.ndarray, of: Callable[[torch.Tensor], torch.Tensor]
    ) -> np.ndarray:
        if activations.shape[1] != self.width:
            raise DictionaryError(
                f"the dictionary reads {self.width} units, and the site has {activations.shape[1]}"
            )
        with torch.inference_mode():
            parts = [
                of(
                    torch.as_tensor(activations[start : start + ENCODED], dtype=torch.float32)
                ).numpy()
                for start in range(0, len(activations), ENCODED)
            ]
        return np.concatenate(parts)


def train(
    activations: np.ndarray,
    training: Training,
    *,
    advance: Callable[[int], None] = lambda tokens: None,
) -> Dictionary:
    """Train a dictionary.

    Parameters
    ----------
    activations : numpy.ndarray
        token x unit.
    training : Training
    advance : callable
        Told the number of tokens whenever some are done.

    Returns
    -------
    Dictionary

    Raises
    ------
    DictionaryError
        If sae-lens is not installed, or there are fewer tokens than a step takes.
    """
    lens = _sae_lens()
    if len(activations) < STEP:
        raise DictionaryError(
            f"{len(activations)} tokens to train on, and a step takes {STEP}; give more text"
        )
    units, mean = activations.shape[1], activations.mean(0)
    # So that a rate and a penalty mean the same at every site.
    scale = float(np.sqrt(units / np.square(activations - mean).sum(1).mean()))
    steps = max(1, training.tokens // STEP)
    settings = {"d_in": units, "d_sae": training.width, "device": "cpu"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        if training.architecture == "topk":
            kind, made = lens.TopKTrainingSAE, lens.TopKTrainingSAEConfig(
                k=training.active, **settings
            )  # fmt: skip
        else:
            # The size of a feature, if so many share the length of a token. Twice as wide or half
            # as wide a band, and a tenth of the penalty, found fewer of planted atoms.
            each = (units / training.active) ** 0.5
            kind, made = lens.JumpReLUTrainingSAE, lens.JumpReLUTrainingSAEConfig(
                jumprelu_sparsity_loss_mode="quadratic", target_l0=float(training.active),
                l0_coefficient=0.01 * units, l0_warm_up_steps=steps // 5,
                jumprelu_bandwidth=0.9 * each, jumprelu_init_threshold=0.3 * each,
                jumprelu_ste_to_input=True, **settings,
            )  # fmt: skip
        trainer = lens.SAETrainer(
            _trainer_config()(
                total_training_samples=steps * STEP,
                train_batch_size_samples=STEP,
                lr=RATE,
                lr_end=RATE / 10,
                lr_decay_steps=steps // 5,
                dead_feature_window=max(1, steps // 10),
            ),
            kind(made),
            iter(()),
        )
        rng, left = np.random.default_rng(training.seed), np.empty(0, dtype=int)
        for _ in range(steps):
            while len(left) < STEP:
                left = np.concatenate([left, rng.permutation(len(activations))])
            some, left = left[:STEP], left[STEP:]
            trainer.step(torch.from_numpy((activations[some] - mean) * scale).float())
            trainer.n_training_steps += 1
            advance(STEP)
    with TemporaryDirectory() as folder:
        trainer.sae.save_inference_model(folder)
        sae = lens.SAE.load_from_disk(folder)
    # What it reads is activations as they are.
    sae.fold_activation_norm_scaling_factor(scale)
    sae.b_dec.data += torch.from_numpy(mean)
    return Dictionary(sae)


def released(release: str, name: str) -> tuple[Dictionary, str]:
    """A dictionary that others released, and the hook at which it reads.

    Parameters
    ----------
    release, name : str
        As sae-lens lists them, such as ``gemma-scope-2b-pt-res-canonical`` and
        ``layer_20/width_16k/canonical``; or, with ``disk`` as the release, a folder that sae-lens
        wrote.

    Raises
    ------
    DictionaryError
        If sae-lens is not installed, or it cannot be had.
    """
    lens = _sae_lens()
    try:
        if release == "disk":
            sae = lens.SAE.load_from_disk(Path(name), device="cpu")
        else:
            sae = lens.SAE.from_pretrained(release, name, device="cpu")
    except Exception as error:  # of the hub, of the release's own loader, of files
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise DictionaryError(f"dictionary {release}, {name}: {why[0]}") from None
    hook = sae.cfg.metadata.hook_name or getattr(sae.cfg, "hook_name", None)
    return Dictionary(sae), str(hook or "")


def check_hook(dictionary: Dictionary, hook: str, site: Site) -> None:
    """Hold a released dictionary to the site that it was made for.

    Raises
    ------
    DictionaryError
        If its hook is another one.
    """
    from scanner.aliases import resolve

    if not hook:
        return
    try:
        found = resolve(hook)
    except SiteError as error:
        raise DictionaryError(f"dictionary: its hook '{hook}' is no site: {error}") from None
    if (found.kind, found.layer) != (site.kind, site.layer):
        raise DictionaryError(
            f"the dictionary reads '{hook}', which is {found.kind}.{found.layer}, not {site}"
        )


def check_rebuilt(activations: np.ndarray, rebuilt: np.ndarray) -> None:
    """Hold a released dictionary to rebuilding more than the mean does, row x unit of both.

    Raises
    ------
    DictionaryError
        If it does not.
    """
    left = np.square(activations - rebuilt).sum()
    spread = np.square(activations - activations.mean(0)).sum()
    if not left < spread:
        raise DictionaryError(
            f"the dictionary leaves {left / spread:.1f} times the variance of the site: it was "
            "made for another model, another layer, or activations of another size"
        )


def _trainer_config() -> Any:
    from sae_lens.config import SAETrainerConfig

    return SAETrainerConfig


def _sae_lens() -> Any:
    try:
        import sae_lens
    except ImportError as error:
        raise DictionaryError(
            f"sparse autoencoders need sae-lens ({error}); `make sae`, or "
            '`pip install -c requirements.lock -e ".[sae]"`'
        ) from None
    return sae_lens
