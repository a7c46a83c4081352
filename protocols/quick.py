"""A quick look at a study: fewer subjects, words and dealings, and nothing that is a finding.

What a look is content with is the line ``quick`` of a protocol. From it follows another protocol,
whose name has ``_quick`` behind it and which says ``exploratory: true``: it has its own folder of
results and its own registrations, and none of its verdicts is a finding. It is written down, and
checked and verified, as any protocol.
"""

from copy import deepcopy
from typing import Any

from analyses import REGISTRY
from protocols.marked_yaml import MarkedYaml

SUFFIX = "_quick"


def quick_look(source: MarkedYaml) -> MarkedYaml:
    """The protocol of a quick look at another one.

    Parameters
    ----------
    source : MarkedYaml
        A protocol that has been checked whole.

    Raises
    ------
    ProtocolError
        If it does not say what a quick look is content with, or if nothing is left to claim.
    """
    data = deepcopy(source.data)
    quick = data.pop("quick", None)
    if quick is None:
        raise source.error(
            (), "does not say what a quick look is content with; add a line such as "
            "`quick: {items: 8, twins: 1}`",
        )  # fmt: skip
    data["study"] = f"{data['study']}{SUFFIX}"
    data["title"] = f"A quick look: {data.get('title') or source.data['study']}"
    data["exploratory"] = True
    data["subjects"] = [one for one in data["subjects"] if _kept(quick, _called(one))]
    stimuli = data["stimuli"]
    data["stimuli"] = {"set": stimuli} if isinstance(stimuli, str) else stimuli
    for name in ("items", "frames"):
        _cap(data["stimuli"], name, quick.get(name))
    _cap(data["scan"], "twins", quick.get("twins"), missing=0)
    left_out = quick.get("without", ())
    data["analyses"] = {
        name: given for name, given in data["analyses"].items() if name not in left_out
    }
    for given in data["analyses"].values():
        for kind, settings in given.items():
            default = getattr(REGISTRY[kind], "random", None)
            if isinstance(default, int):
                _cap(settings, "random", quick.get("random"), missing=default)
    models = {_called(one) for one in data["subjects"]}
    data["hypotheses"] = [one for one in data.get("hypotheses", ()) if _stays(one, data, models)]
    if not data["hypotheses"] and source.data.get("hypotheses"):
        raise source.error(("quick",), "leaves out all that is claimed; keep more subjects")
    # What is wrong with it is wrong with the line that it follows from.
    return MarkedYaml(source.path, data, {(): source.lines[("quick",)]})


def _called(subject: Any) -> str:
    """What hypotheses call it."""
    return subject if isinstance(subject, str) else subject.get("name") or subject["model"]


def _kept(quick: dict[str, Any], model: str) -> bool:
    return "subjects" not in quick or model in quick["subjects"]


def _cap(settings: dict[str, Any], name: str, most: int | None, *, missing: Any = None) -> None:
    """At most so many; where nothing is said, all there are."""
    if most is not None:
        found = settings.get(name, missing)
        settings[name] = most if found is None else min(found, most)


def _stays(hypothesis: dict[str, Any], data: dict[str, Any], models: set[str]) -> bool:
    """Whether what a hypothesis is about is still there."""
    named = [hypothesis.get("subject"), hypothesis.get("beside")]
    named += [*hypothesis.get("among", ()), *hypothesis.get("minus", ())]
    analysis = hypothesis["measure"].partition(".")[0]
    return analysis in data["analyses"] and {*named} <= {*models, "every", None}
