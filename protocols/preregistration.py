"""What a study registered, in the words that the forms of registries ask for.

A ledger on one's own disk shows others nothing: whoever writes it could write it anew. Its head
digest, published in a registry before the data, fixes all lines up to it in time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from protocols.report.methods import analysis_in_words, controls_in_words
from protocols.report.words import counted, listed
from protocols.schema import Study
from verification import Filed, Hypothesis
from verification.base import EVERY

Form = Literal["osf", "aspredicted"]

FREE = "(to be written by the authors)"


@dataclass(frozen=True)
class Registered:
    """A study as it stands in the ledger.

    Attributes
    ----------
    study : Study
    filed : mapping of str to Filed
        The registrations of its hypotheses, by id.
    head : str
        Digest of the ledger's last line.
    recorded : sequence of str
        Those of its volumes that are there already.
    """

    study: Study
    filed: Mapping[str, Filed]
    head: str
    recorded: Sequence[str]


def export(form: Form, registered: Registered) -> str:
    """The text that a form asks for, in Markdown, by its headings.

    Parameters
    ----------
    form : {'osf', 'aspredicted'}
        ``OSF Preregistration``, or the questions of ``AsPredicted``.
    registered : Registered
    """
    answers = {"osf": _osf, "aspredicted": _aspredicted}[form](registered)
    return "\n\n".join(f"## {question}\n\n{answer}" for question, answer in answers.items()) + "\n"


def _osf(registered: Registered) -> dict[str, str]:
    study = registered.study
    return {
        "Title": study.protocol.title or study.protocol.study,
        "Description": FREE,
        "Hypotheses": _hypotheses(study, rationale=True),
        "Study type": "Experiment on language models: the same model reads stimuli of every "
        "category.",
        "Blinding": "No blinding is involved. The analysis is fixed by the protocol and run by a "
        "program.",
        "Study design": _stimuli(study),
        "Randomization": f"Every random choice (splits, permutations, half-samples, fresh weights) "
        f"follows from the registered seed, {study.protocol.seed}.",
        "Existing data": _existing(registered),
        "Data collection procedures": _scan(study),
        "Sample size": _sample(study),
        "Sample size rationale": FREE,
        "Stopping rule": "All stimuli are recorded once; there is no interim look.",
        "Manipulated variables": f"The category of the item, by the label that each analysis "
        f"reads: {listed(_labels(study))}.",
        "Measured variables": f"Activations at {listed(list(study.protocol.scan.sites))} in all "
        "layers.",
        "Indices": _analyses(study),
        "Statistical models": f"{_inference()}{_alternatives(study)}",
        "Transformations": "None beyond those of the analyses.",
        "Inference criteria": _criteria(study),
        "Data exclusion": "No stimulus is excluded. An activation that is not finite ends the "
        "recording with an error.",
        "Missing data": "There are none: a volume holds every stimulus or is not finished.",
        "Exploratory analysis": "Whatever is registered after its data were recorded is marked "
        "exploratory and can be no finding.",
        "Other": _digests(registered),
    }


def _aspredicted(registered: Registered) -> dict[str, str]:
    study = registered.study
    return {
        "1) Have any data been collected for this study already?": _existing(registered),
        "2) What's the main question being asked or hypothesis being tested in this study?": (
            _hypotheses(study, rationale=False)
        ),
        "3) Describe the key dependent variable(s) specifying how they will be measured.": (
            f"{_scan(study)}\n\n{_analyses(study)}"
        ),
        "4) How many and which conditions will participants be assigned to?": _stimuli(study),
        "5) Specify exactly which analyses you will conduct to examine the main "
        "question/hypothesis.": f"{_inference()}{_alternatives(study)}\n\n{_criteria(study)}",
        "6) Describe exactly how outliers will be defined and handled, and your precise rule(s) "
        "for excluding observations.": "No stimulus is excluded, and no activation is clipped. One "
        "that is not finite ends the recording with an error.",
        "7) How many observations will be collected or what will determine sample size?": (
            _sample(study)
        ),
        "8) Anything else you would like to pre-register?": _digests(registered),
    }


def _hypotheses(study: Study, *, rationale: bool) -> str:
    return "\n\n".join(
        f"**{one.id}.** {one.claim} {_prediction(one)}"
        + (f"\n\nRationale: {one.rationale}" if rationale else "")
        for one in study.protocol.hypotheses
    )


def _prediction(one: Hypothesis) -> str:
    place = one.at.layer
    where = {
        "selected": f"at the layer that is chosen on {one.selection:.0%} of the items and judged "
        "on the rest",
        "mean": "in the mean over layers",
        "max": "at the layer where it is largest",
        "min": "at the layer where it is smallest",
        "steepest": "in how fast it rises through the depth where it rises fastest",
        "dip": "in how far it falls in the middle of the depth below what it is on both sides",
    }.get(str(place), f"at layer {place}")
    if one.follows is not None:
        than = (
            f"has a rank correlation over subjects with {one.follows} that is {one.expect} than 0"
        )
    elif one.minus is not None:
        than = f"has a mean difference over pairs of subjects that is {one.expect} than 0"
    else:
        mean = ", in the mean over subjects," if one.subject == EVERY else ""
        than = f"is{mean} {one.expect} than {one.than}"
    return (
        f"{one.measure} {where} {than} by at least "
        f"{one.smallest_effect:g} (one-sided alpha {one.alpha:g})."
    )


def _existing(registered: Registered) -> str:
    if not registered.recorded:
        return "No. None of the recordings that the hypotheses will be judged on has been made."
    return (
        f"Yes: {counted(len(registered.recorded), 'recording')} of this study is there already. "
        "A hypothesis that was registered after them is exploratory, by the order of the ledger's "
        "lines, and can be no finding on them."
    )


def _stimuli(study: Study) -> str:
    table, spec = study.stimuli.table, study.protocol.stimuli
    return (
        f"{counted(len(table), 'text')} of the set '{spec.set}': "
        f"{counted(table['item'].nunique(), 'item')} of {table['category'].nunique()} categories, "
        f"crossed with {counted(table['frame'].nunique(), 'sentence frame')}. Each subject reads "
        f"all of them. Digest of the stimuli: {study.stimuli.digest}."
    )


def _scan(study: Study) -> str:
    scan = study.protocol.scan
    subjects = [
        spec.model
        + (f" (revision {spec.revision})" if spec.revision else "")
        + f", {spec.dtype}"
        + (f" with weights rounded to {spec.weights}" if spec.weights else "")
        for spec in study.protocol.subjects
    ]
    return (
        f"Subjects: {listed(subjects)}; with {counted(scan.twins, 'untrained twin')} each (fresh "
        f"weights). Recorded: {listed(list(scan.sites))} in all layers; tokens: {scan.tokens}."
    )


def _sample(study: Study) -> str:
    table = study.stimuli.table
    counts = table.groupby("category")["item"].nunique()
    return (
        f"{table['item'].nunique()} items, {counts.min()} to {counts.max()} a category. The item, "
        "not the stimulus, is the unit of inference."
    )


def _labels(study: Study) -> list[str]:
    found = (getattr(one, "label", None) for one in study.analyses.values())
    return list(dict.fromkeys(one for one in found if one is not None))


def _analyses(study: Study) -> str:
    return "\n\n".join(analysis_in_words(name, one) for name, one in study.analyses.items())


def _inference() -> str:
    return (
        "The interval of a measure comes from a delete-half jackknife over items, stratified by "
        "category, that repeats the whole analysis; one-sided p-values by Student's t, adjusted "
        "after Holm over the hypotheses below. The rule is verification/README.md of the code "
        "version that the ledger names."
    )


def _alternatives(study: Study) -> str:
    """What the analyses might as well have been, by hypothesis; empty where none says so."""
    named = [
        f"- {one.id}: "
        + "; ".join(
            f"{setting} of {', '.join(map(str, values))}"
            for setting, values in one.alternatives.items()
        )
        for one in study.protocol.hypotheses
        if one.alternatives
    ]
    if not named:
        return ""
    return (
        "\n\nBeside the verdict, and without changing it, the measure is shown under every "
        "combination of settings that might as well have been chosen (specification curve):\n\n"
        + "\n".join(named)
    )


def _criteria(study: Study) -> str:
    rules = (
        "A claim is supported if its adjusted p reaches alpha, its estimate the smallest effect, "
        "and every control is passed; rejected if a control is not; null if the whole interval "
        "lies below the smallest effect; inconclusive otherwise; invalid if a control could not "
        "be run."
    )
    named = [f"- {one.id}: {', '.join(one.controls)}" for one in study.protocol.hypotheses]
    return "\n\n".join([rules, controls_in_words(study), "\n".join(named)])


def _digests(registered: Registered) -> str:
    lines = [
        f"- {name}, version {one.version}: {one.sha256}" for name, one in registered.filed.items()
    ]
    return (
        f"Protocol sha256 {registered.study.sha256}. Head of the ledger: {registered.head}. "
        "Registrations (sha256 of canonical JSON):\n\n" + "\n".join(lines)
    )
