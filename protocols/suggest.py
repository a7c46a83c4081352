"""From a knowledge map to what would test it: layers to act on, and the protocol that does.

A layer is named where two of the four lenses that are laid over each other take it, by the rule
that may take none (`analyses.knowledge_map`). To name it is no finding: it was read off the items
that the map was made of. The protocol teaches the domain to these layers, and to as many others,
and judges sentences that were not taught (`analyses.tuning`).
"""

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
import yaml

from analyses.knowledge_map import LAID
from analyses.tuning import Tuning
from protocols.folders import Folders, RunError
from protocols.report.words import listed, spelled
from protocols.run import save_text
from protocols.schema import Protocol, load_study
from protocols.verify import folders_of
from stimuli import StimulusSet, shipped

# Lenses that must take a layer.
FEWEST = 2
# Twins of the test, if the study had none: each is taught as often as the subject.
TWINS = 1
# What the test asks for. A tenth of a nat makes an answer a tenth likelier.
SMALLEST, ALPHA = 0.1, 0.01
CONTROLS: Mapping[str, Mapping[str, float]] = {
    "untrained_twin": {"margin": 0.05},
    "random_target": {"margin": 0.05},
    "split_half": {"margin": 0.0},
}
CAUTION = (
    "What is used in a layer need not be changed best there. The protocol teaches other layers the "
    "same, and judges sentences that were not taught."
)


@dataclass(frozen=True)
class Suggestion:
    """What a map names of one subject.

    Attributes
    ----------
    map : str
        The analysis, as its protocol names it.
    subject : str
        As its protocol names it.
    label : str
        The column that has the domains.
    depth : int
        Layers of the model.
    domains : mapping of str to mapping of int to tuple of str
        Of each domain the layers that are named, and the lenses that take each.
    """

    map: str
    subject: str
    label: str
    depth: int
    domains: Mapping[str, Mapping[int, tuple[str, ...]]]

    @property
    def by_hand(self) -> bool:
        """Whether no lens took what is named."""
        return not any(any(layers.values()) for layers in self.domains.values())

    @property
    def caution(self) -> str:
        """What it is not."""
        if self.by_hand:
            return f"These layers were named by hand, and not by the map. {CAUTION}"
        return (
            "This is a suggestion and no finding: layers are named by the items that the map was "
            f"made of. {CAUTION}"
        )

    @property
    def lines(self) -> list[str]:
        """It in words, a domain a line."""
        found = [f"{self.map} of {self.subject}: layers that {spelled(FEWEST)} lenses or more take"]
        for domain, layers in self.domains.items():
            told = [f"{layer} ({', '.join(lenses)})" for layer, lenses in layers.items()]
            found.append(f"  {domain}: {'; '.join(told) or 'none'}")
        if not any(self.domains.values()):
            found.append(
                "  The map is empty: nothing is suggested, and there is nothing to be tested. "
                "`--category NAME --layers ...` writes the protocol for layers of your own."
            )
        return found


def suggestions(home: Path, *, category: str | None, subject: str | None) -> list[Suggestion]:
    """What the knowledge maps of a finished study name.

    Parameters
    ----------
    home : pathlib.Path
        Its folder, ``results/<study>``.
    category : str, optional
        One domain alone.
    subject : str, optional
        One subject alone, as the protocol names it.

    Raises
    ------
    VerifyError
        If there is no such study.
    RunError
        If there is no map in it, or no such domain or subject.
    """
    folders = folders_of(home)
    recorded = json.loads(folders.verdicts.read_text())["recordings"]
    names = {one["subject"]: one["model"] for one in recorded if one["seed"] is None}
    protocol = _protocol(folders)
    maps = [name for name, given in protocol.analyses.items() if "knowledge_map" in given]
    if not maps:
        raise RunError(
            f"{home} holds no knowledge map; add one to its protocol: "
            "`analyses: {map: {knowledge_map: {site: resid_post, rest: ...}}}`"
        )
    _check_known("subject", subject, list(names.values()), home)
    found = [
        _read(folders.measures(name, one), name, model)
        for name in maps
        for one, model in names.items()
        if subject in (None, model)
    ]
    domains = [domain for one in found for domain in one.domains]
    _check_known("domain", category, list(dict.fromkeys(domains)), home)
    return [
        Suggestion(
            one.map, one.subject, one.label, one.depth,
            {name: layers for name, layers in one.domains.items() if category in (None, name)},
        )
        for one in found
    ]  # fmt: skip


def by_hand(found: Sequence[Suggestion], layers: Sequence[int]) -> list[Suggestion]:
    """The same with layers that are named by hand, of a single domain and subject.

    Raises
    ------
    RunError
        If there are several of these.
    """
    if (
        len({one.subject for one in found}) > 1
        or len({d for one in found for d in one.domains}) > 1
    ):
        raise RunError("--layers is for one domain of one subject; say --category and --subject")
    (domain,) = found[0].domains
    given = {layer: () for layer in dict.fromkeys(layers)}
    one = found[0]
    return [Suggestion(one.map, one.subject, one.label, one.depth, {domain: given})]


def write_tests(home: Path, found: Sequence[Suggestion], out: Path | None) -> list[Path]:
    """Write the protocols that test suggestions, one for each subject; of nothing there is none.

    Parameters
    ----------
    home : pathlib.Path
        The folder of the study.
    found : sequence of Suggestion
    out : pathlib.Path, optional
        Where it goes; by default to the protocols beside the study.

    Raises
    ------
    RunError
        If `out` is one file and there are several protocols, or as many other layers are not left.
    """
    some = [one for one in found if any(one.domains.values())]
    if out is not None and len(some) > 1:
        raise RunError(
            f"there are {len(some)} protocols to be written, and --out is one file; say --subject"
        )
    folders = Folders(home.parent, home.name)
    written = []
    for one in some:
        name = "-".join([home.name, "tuning", *_plain(one, some)])
        path = out or folders.root / "protocols" / f"{name}.yaml"
        test = _test(folders, one, name)
        heading = f"Written by `scan suggest` from the map '{one.map}' of the study {home.name}."
        comment = textwrap.fill(f"{heading} {one.caution}", 100, initial_indent="# ",
                                subsequent_indent="# ")  # fmt: skip
        plain = yaml.safe_dump(test, sort_keys=False, width=100, default_flow_style=None)
        save_text(f"{comment}\n{plain}", path)
        load_study(path)
        written.append(path)
    return written


def _protocol(folders: Folders) -> Protocol:
    return load_study(folders.protocol, stimuli=StimulusSet.from_csv(folders.stimuli)).protocol


def _check_known(kind: str, asked: str | None, known: Sequence[str], home: Path) -> None:
    if asked is not None and asked not in known:
        raise RunError(f"{home} has no {kind} '{asked}'; it has {', '.join(known)}")


def _read(path: Path, name: str, model: str) -> Suggestion:
    """A map as it was saved."""
    if not path.is_file():
        raise RunError(f"{path} is gone; run the study again")
    with xr.open_dataset(path, engine="h5netcdf") as measures:
        kept = measures[["agreed_null", "chosen_null"]].load()
        (settings,) = json.loads(measures.attrs["analysis"]).values()
    layers = kept["layer"].to_numpy().tolist()
    domains = {}
    for domain in map(str, kept["category"].to_numpy()):
        if domain == settings["rest"]:
            continue
        here = kept.sel(category=domain)
        counts = here["agreed_null"].to_numpy()
        domains[domain] = {
            layer: tuple(one for one in LAID if here["chosen_null"].sel(lens=one, layer=layer) > 0)
            for layer, count in zip(layers, counts, strict=True)
            if count >= FEWEST
        }
    return Suggestion(name, model, settings["label"], len(layers), domains)


def _test(folders: Folders, found: Suggestion, name: str) -> dict[str, Any]:
    """The protocol that teaches what is suggested, as YAML has it."""
    protocol = _protocol(folders)
    asked = protocol.stimuli
    stimuli = (
        asked.model_dump(mode="json", exclude_none=True)
        if asked.set in shipped()
        else {"set": str(folders.stimuli.resolve())}
    )
    (spec,) = (one for one in protocol.subjects if one.called == found.subject)
    # A folder is named from here, not from where the protocol lies.
    model = str(Path(spec.model).resolve()) if Path(spec.model).is_dir() else spec.model
    scan = protocol.scan
    analyses, hypotheses = {}, []
    for number, (domain, layers) in enumerate(found.domains.items()):
        if not layers:
            continue
        tuning = Tuning(domain, tuple(layers), label=found.label)
        why = tuning.beyond(found.depth)
        if why:
            raise RunError(f"'{domain}' cannot be tested: {why}")
        own = re.sub(r"[^a-z0-9]+", "_", domain.lower()).strip("_") or str(number)
        settings = {"category": domain, "layers": list(layers), "label": found.label}
        analyses[f"tune_{own}"] = {"tuning": settings}
        hypotheses += _hypotheses(f"tune_{own}", own, tuning, found)
    return {
        "study": name,
        "title": "Layers of a knowledge map, taught beside as many others",
        "subjects": [{**spec.model_dump(mode="json", exclude_defaults=True), "model": model}],
        "stimuli": stimuli,
        "scan": {
            **scan.model_dump(mode="json", exclude_defaults=True),
            "twins": max(TWINS, scan.twins),
        },
        "analyses": analyses,
        "hypotheses": hypotheses,
        "seed": protocol.seed,
    }


def _hypotheses(name: str, own: str, tuning: Tuning, found: Suggestion) -> list[dict[str, Any]]:
    """That other sentences of the domain gain by it, and that other domains lose less."""
    layers = listed([str(one) for one in tuning.layers])
    where = f"{'layer' if len(tuning.layers) == 1 else 'layers'} {layers}"
    why = "They were named by hand." if found.by_hand else f"The map '{found.map}' names them."
    claims = {
        "advantage": (
            f"{own.replace('_', '-')}-reaches",
            f"What {where} are taught of {tuning.category} reaches sentences that were not taught, "
            "more than what as many other layers are taught.",
            f"{why} A tenth of a nat more than as many others gain is the least that matters.",
        ),
        "spared": (
            f"{own.replace('_', '-')}-spares",
            f"Other domains lose less when {where} are taught {tuning.category} than when as many "
            "other layers are.",
            f"{why} A place of one domain alone would leave the others as they are.",
        ),
    }
    return [
        {
            "id": which, "claim": claim, "rationale": rationale, "measure": f"{name}.{variable}",
            "at": {"layer": tuning.layers[0]}, "expect": "greater", "than": "chance",
            "smallest_effect": SMALLEST, "alpha": ALPHA,
            "controls": {control: dict(given) for control, given in CONTROLS.items()},
        }
        for variable, (which, claim, rationale) in claims.items()
    ]  # fmt: skip


def _plain(one: Suggestion, some: Sequence[Suggestion]) -> list[str]:
    """What tells a protocol from the others, as a study may be called."""
    parts = []
    if len({other.subject for other in some}) > 1:
        parts.append(Path(one.subject).name)
    if len({other.map for other in some}) > 1:
        parts.append(one.map)
    return [re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts]
