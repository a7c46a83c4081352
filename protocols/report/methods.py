"""The methods paragraph of a study, written from its protocol, its recordings and its verdicts."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import xarray as xr

from protocols.report.prose import analysis_in_words, summary_line
from protocols.report.sources import sources
from protocols.report.words import (
    NOT_COMPUTED,
    between,
    capital,
    counted,
    deviation,
    listed,
    number,
    p_value,
    percent,
    plain,
    shape,
    spelled,
)
from protocols.schema import ScanSpec, Study
from scanner.sites import MEANINGS, OUTSIDE, PAIRED, Kind
from verification import CONTROLS, Control, Hypothesis
from verification.base import EVERY
from verification.measure import THROUGH_DEPTH
from verification.statistics import HALF_SAMPLES

# Where activations were taken, by the settings of a scan.
TOKENS = {
    "target": "at the last token of the target",
    "target_mean": "averaged over the tokens of the target",
    "last": "at the last token of each {text}",
    "mean": "averaged over the tokens of each {text} but the first",
    "all": "at every token of each {text}",
}
SHARED = "texts that begin alike are computed together"


def paragraphs(
    study: Study, summary: Mapping[str, Any], volumes: Mapping[str, xr.Dataset]
) -> list[str]:
    """The methods and results of a study, to paste into a paper.

    Parameters
    ----------
    study : Study
    summary : mapping
        What `verdicts.json` holds.
    volumes : mapping of str to xarray.Dataset
        The recordings, by the names of their subjects.

    Returns
    -------
    list of str
        Subjects, stimuli, analyses, inference and results, software.
    """
    parts = [
        _subjects(summary, volumes),
        _stimuli(study, volumes),
        " ".join(analysis_in_words(name, analysis) for name, analysis in study.analyses.items()),
    ]
    if summary["verdicts"]:
        parts += [_inference(study, summary), controls_in_words(study), _results(summary)]
    return [*parts, _software(summary)]


def references(study: Study, summary: Mapping[str, Any]) -> list[str]:
    """The sources of the methods that this study used, in the order of their authors."""
    used = [next(iter(given)) for given in study.protocol.analyses.values()]
    used += [name for hypothesis in study.protocol.hypotheses for name in hypothesis.controls]
    if summary["verdicts"]:
        used.append("judging")
    used += [
        name
        for name, there in (
            ("every", any(map(_of_every, study.protocol.hypotheses))),
            ("follows", any(one.follows for one in study.protocol.hypotheses)),
            ("minus", any(one.minus for one in study.protocol.hypotheses)),
            ("alternatives", any(one.alternatives for one in study.protocol.hypotheses)),
            ("through_depth", any(map(_through_depth, study.protocol.hypotheses))),
        )
        if there
    ]
    if any(not verdict["exploratory"] for verdict in summary["verdicts"]):
        used.append("holm")
    return sources(used)


def _of_every(hypothesis: Hypothesis) -> bool:
    """Whether a claim is about the mean over subjects."""
    return hypothesis.subject == EVERY and not hypothesis.follows and not hypothesis.minus


def _through_depth(hypothesis: Hypothesis) -> bool:
    return hypothesis.at.layer in THROUGH_DEPTH


def _subjects(summary: Mapping[str, Any], volumes: Mapping[str, xr.Dataset]) -> str:
    sentences = []
    for recording in summary["recordings"]:
        if recording["seed"] is not None:
            continue
        attrs = volumes[recording["subject"]].attrs
        seeds = [
            str(other["seed"])
            for other in summary["recordings"]
            if other["model"] == recording["model"] and other["seed"] is not None
        ]
        sentences.append(
            f"The subject was {recording['subject']} (revision {attrs['revision']}, weights "
            f"{attrs['weights']}), computed in {attrs['dtype']} on {attrs['device']}"
            + (f" with {attrs['attention']} attention" if "attention" in attrs else "")
            + (f" in batches of up to {attrs['batch']} tokens" if "batch" in attrs else "")
            + (f", and stored in {attrs['store']}" if _narrower(attrs) else "")
            + "."
        )
        if seeds:
            drawn = attrs.get("initialisation", "the initialisation of its library")
            sentences.append(
                f"{capital(spelled(len(seeds)))} untrained "
                f"{'twin' if len(seeds) == 1 else 'twins'} of the same architecture with "
                f"fresh weights ({drawn}; seeds {listed(seeds)}) read the same stimuli."
            )
    sentences += [_phantoms(volumes), _identities(volumes), _sharing(volumes)]
    return " ".join(sentence for sentence in sentences if sentence)


def _narrower(attrs: Mapping[str, Any]) -> bool:
    """Whether the numbers of a volume are not those that were computed."""
    return attrs.get("store") == "float16" and attrs["dtype"] != "float16"


def _phantoms(volumes: Mapping[str, xr.Dataset]) -> str:
    """What the device was found to be; recordings of one that failed come first."""
    found = [json.loads(v.attrs["phantom"]) for v in volumes.values() if "phantom" in v.attrs]
    failed = [one for one in found if "faults" in one]
    if failed:
        faults = dict.fromkeys(fault for one in failed for fault in one["faults"])
        return (
            f"The device failed its phantom ({'; '.join(faults)}), and was recorded on "
            "nevertheless: what was recorded may be wrong."
        )
    if not found:
        return ""
    worst = max(found, key=lambda one: one["largest_error"] / one["bound"])
    return (
        "The device had passed its phantom, small models that are known in float64: it was off by "
        f"at most {deviation(worst['largest_error'])} of a site's scale, where "
        f"{worst['bound']:.2g} is allowed."
    )


def _identities(volumes: Mapping[str, xr.Dataset]) -> str:
    largest: dict[str, float] = {}
    failed: set[str] = set()
    for volume in volumes.values():
        failed |= set(re.findall(r"the identity '(\w+)' fails", volume.attrs.get("refused", "")))
        for name, found in json.loads(volume.attrs["identities"]).items():
            largest[name] = max(found, largest.get(name, 0.0))
    # One is asked for prompts that share what they begin with, and is told with them.
    held = {
        name: found
        for name, found in largest.items()
        if name not in failed and name != "alone_equals_shared"
    }
    if not held:
        return ""
    return (
        "Before it was recorded, each model had to satisfy "
        f"{spelled(len(held))} {'identity' if len(held) == 1 else 'identities'} of its sites "
        f"({listed([plain(name) for name in held])}); the largest relative deviation was "
        f"{deviation(max(held.values()))}."
    )


def _sharing(volumes: Mapping[str, xr.Dataset]) -> str:
    shared = {n: one for n, one in volumes.items() if one.attrs.get("sharing") == SHARED}
    if not shared:
        return ""
    counts = sorted({(v.attrs["tokens_unique"], v.attrs["tokens_read"]) for v in shared.values()})
    proved = [json.loads(v.attrs["identities"])["alone_equals_shared"] for v in shared.values()]
    apart = [name for name in volumes if name not in shared]
    return (
        "Tokens that texts begin with alike were computed once "
        f"({listed([f'{unique} of {read} tokens' for unique, read in counts])}"
        + (f"; not in {listed(apart)}" if apart else "")
        + "); a prompt that shares its beginning differed from the prompt alone by at most "
        f"{deviation(max(proved))}."
    )


def _stimuli(study: Study, volumes: Mapping[str, xr.Dataset]) -> str:
    table, spec, scan = study.stimuli.table, study.protocol.stimuli, study.protocol.scan
    part = ", a stratified part of the set" if not spec.whole else ""
    words = "" if spec.sampled is None else f", each a value of {plain(spec.sampled)}"
    sentences = [
        f"The stimuli were {len(table)} texts of the set '{spec.set}'{part}: "
        f"{table['item'].nunique()} items{words} of {table['category'].nunique()} categories, in "
        f"{counted(table['frame'].nunique(), 'sentence frame')}."
    ]
    if scan.chat is not None:
        system = scan.chat.system
        prompt = "without a system prompt" if system is None else f"after the prompt '{system}'"
        sentences.append(
            "Each text was what a user says in a conversation, by the chat template of the "
            f"subject, {prompt}, up to where the answer begins."
        )
    if scan.truncate:
        sentences.append("Texts longer than the context of a subject were cut there.")
    return " ".join([*sentences, _recorded(scan, volumes)])


def _recorded(scan: ScanSpec, volumes: Mapping[str, xr.Dataset]) -> str:
    """Which sites were recorded, of what shape, and at which tokens."""
    inside: list[Kind] = [kind for kind in scan.sites if kind not in OUTSIDE]
    outside: list[Kind] = [kind for kind in scan.sites if kind in OUTSIDE]
    layers = sorted({one[kind].sizes["layer"] for one in volumes.values() for kind in inside})
    parts = []
    if inside:
        every = listed([str(count) for count in layers], "or")
        parts.append(f"{listed([_shaped(kind, volumes) for kind in inside])} in all {every} layers")
    if outside:
        parts.append(listed([_shaped(kind, volumes) for kind in outside]))
    verb = "was" if len(scan.sites) == 1 else "were"
    return f"Recorded {verb} {', and '.join(parts)}, {_tokens(scan)}."


def _shaped(kind: Kind, volumes: Mapping[str, xr.Dataset]) -> str:
    rest = (*MEANINGS[kind].dims, "rank")
    shapes = dict.fromkeys(
        shape({str(dim): size for dim, size in one[kind].sizes.items() if dim in rest})
        for one in volumes.values()
    )
    seen = ", for each token that is seen" if kind in PAIRED else ""
    return f"{kind} ({listed(list(shapes), 'or')}{seen})"


def _tokens(scan: ScanSpec) -> str:
    text = "text" if scan.chat is None else "conversation"
    if isinstance(scan.tokens, str):
        return TOKENS[scan.tokens].format(text=text)
    places = listed([str(position) for position in scan.tokens])
    where = "position" if len(scan.tokens) == 1 else "positions"
    return f"at {where} {places} of each {text} (from 0; below it from the end)"


def _inference(study: Study, summary: Mapping[str, Any]) -> str:
    verdicts = summary["verdicts"]
    exploratory = sum(verdict["exploratory"] for verdict in verdicts)
    alphas = sorted({verdict["alpha"] for verdict in verdicts})
    words = (
        f"{capital(spelled(len(verdicts)))} "
        f"{'hypothesis' if len(verdicts) == 1 else 'hypotheses'} with direction, smallest "
        "effect that matters, error rate and controls stood in a hash-chained ledger"
    )
    words += (
        "; the protocol says that all of them are exploratory."
        if study.protocol.exploratory
        else " before their data were recorded."
        if not exploratory
        else f"; {spelled(exploratory)} of them not before all of the data were recorded, and "
        f"{'is' if exploratory == 1 else 'are'} exploratory."
    )
    if any(hypothesis.at.layer == "selected" for hypothesis in study.protocol.hypotheses):
        words += (
            " Where a layer was selected, it was chosen on a part of the items that was then left "
            "out."
        )
    if any(map(_through_depth, study.protocol.hypotheses)):
        words += (
            " How fast a measure rises is the largest slope, for the whole depth, of a smoothing "
            "spline over layers whose penalty was chosen by generalised cross-validation (Craven & "
            "Wahba 1979); how far it dips is by how much that spline falls below what it reaches "
            "both before and after."
        )
    words += (
        " Standard errors are from a delete-half jackknife over items, stratified by category "
        f"({HALF_SAMPLES} half-samples; Wu 1986; Shao & Wu 1989){_not_smooth(study)}, each of "
        "which repeats the "
        "whole analysis; frames were not resampled. "
        f"Intervals ({listed([percent(1 - 2 * alpha) for alpha in alphas])}) and one-sided "
        "p-values are by Student's t with items less categories as degrees of freedom"
    )
    if any(map(_of_every, study.protocol.hypotheses)):
        words += (
            "; of claims about every subject the error is that between subjects (Holmes & Friston "
            "1998) and, since all have read the same items, that over items besides (Clark 1973), "
            "with degrees of freedom after Satterthwaite (1946), and controls are held against "
            "what they leave in each subject"
        )
    if any(one.minus for one in study.protocol.hypotheses):
        words += (
            "; of claims about pairs of subjects the error is that between pairs, and the p is "
            "that of all signs of the differences (Fisher 1935)"
        )
    if any(one.follows for one in study.protocol.hypotheses):
        words += (
            "; of claims that a measure follows scores of the subjects, the rank correlation has a "
            "p from the values dealt out among subjects, in all orders where these are few, and an "
            "interval after Bonett & Wright (2000)"
        )
    if exploratory < len(verdicts):
        words += "; p-values are adjusted for the number of confirmatory hypotheses (Holm 1979)"
    return (
        f"{words}. A claim counts as supported if its p reaches the error rate "
        f"({listed([f'{alpha:g}' for alpha in alphas])}), its estimate reaches the smallest "
        "effect, and every control is passed, and as rejected if one is not; as null if the whole "
        "interval lies below the smallest effect; otherwise as inconclusive; and as invalid where "
        "it could not be judged."
        + (
            " Beside verdicts, deciding nothing, stands the effect under all combinations of other "
            "settings that were registered (Simonsohn et al. 2020)."
            if any(one.alternatives for one in study.protocol.hypotheses)
            else ""
        )
    )


def controls_in_words(study: Study) -> str:
    """The controls that the hypotheses of a study name, each with its rule."""
    settings: dict[str, list[Control]] = {}
    for hypothesis in study.protocol.hypotheses:
        for name, given in hypothesis.controls.items():
            if name in CONTROLS:
                settings.setdefault(name, []).append(CONTROLS[name](**given))
    return "Controls. " + " ".join(_control(name, those) for name, those in settings.items())


def _control(name: str, controls: list[Control]) -> str:
    margins = sorted({control.margin for control in controls})
    margin = f"{listed([f'{value:g}' for value in margins])}"
    fields = asdict(controls[0])
    words = {
        "untrained_twin": "The strongest of the untrained twins had to be exceeded by a "
        f"registered margin ({margin}; Zhang & Bowman 2018), each twin counted by how often it is "
        "the strongest in halves of the items.",
        "shuffled_labels": f"Labels were shuffled among items {fields.get('permutations')} times "
        "(Phipson & Smyth 2010).",
        "surface_only": "The same analysis read families of features of the surface of the words "
        "(length, frequency, position, tokens, letters, and all of these) in the place of "
        f"activations; the strongest, counted alike, had to be exceeded by a margin ({margin}), "
        "and so had, where the measure is no decoding, their accuracy in telling the label.",
        "held_out_items": f"A share of the items ({fields.get('share')}) was set aside before "
        f"anything was measured; in these the effect had to reach at least the margin ({margin}).",
        "split_half": f"Over {fields.get('splits')} halvings of the items, the weaker half had to "
        f"keep, in the median, an effect of at least the margin ({margin}).",
        "other_frames": f"Over {fields.get('splits')} halvings of the sentence frames, the weaker "
        f"half had to keep, in the median, an effect of at least the margin ({margin}).",
        "other_seeds": f"With {fields.get('seeds')} other seeds of the analysis the effect had to "
        f"reach, in the median, at least the margin ({margin}).",
        "rotated_units": f"The same activations in {fields.get('rotations')} bases at random, "
        "which keep all covariances and forget which unit is which, had to be exceeded by a margin "
        f"({margin}), the strongest counted by how often it is in halves of the items.",
        "control_task": f"Labels dealt out at random among values of {fields.get('type')} "
        f"({fields.get('tasks')} times) had to be exceeded by a margin ({margin}; Hewitt & Liang "
        "2019).",
        "shuffled_items": "Items of the other model were shuffled "
        f"{fields.get('permutations')} times (Phipson & Smyth 2010).",
        "shuffled_nodes": "The wiring of the heads of each layer was shuffled among them "
        f"{fields.get('permutations')} times (Alexander-Bloch et al. 2018; Phipson & Smyth 2010).",
        "planted_wiring": f"A model whose heads have a share of {fields.get('strength')} of their "
        f"variance from those that they read had to fail the claim by a margin ({margin}).",
        "beyond_surface": "What the surface of the words (length, frequency, position, tokens, "
        "letters) predicts of both models, by ridge regressions whose penalties were chosen on "
        "items left out (Golub et al. 1979), was taken out of them (Robinson 1988), and the effect "
        f"had to keep at least the margin ({margin}).",
        "planted_likeness": f"A model of whose variance a share of {fields.get('share')} is the "
        f"other's, turned at random, had to fail the claim by a margin ({margin}).",
        "planted_modules": f"A model with {fields.get('modules')} planted modules of units, whose "
        f"correlation with each other is raised by {fields.get('strength')}, had to fail the claim "
        f"by a margin ({margin}).",
        "random_target": "The same was done to targets at random, as that analysis says; the "
        "strongest, counted by how often it is in halves of the items, had to be exceeded by a "
        f"margin ({margin}).",
        "known_target": "The same was done to what surely has an effect, which had to fail the "
        f"claim by a margin ({margin}).",
        "planted_units": f"A model with {fields.get('units')} planted units of d' = "
        f"{fields.get('strength')} for each category had to fail the claim by a margin ({margin}).",
    }
    return words.get(
        name, f"{plain(name)}: {summary_line(controls[0]).rstrip('.')} (margin {margin})."
    )


def _results(summary: Mapping[str, Any]) -> str:
    sentences = []
    for verdict in summary["verdicts"]:
        kind = "exploratory, " if verdict["exploratory"] else ""
        place = verdict["layer"]
        where = f"layer {place}" if isinstance(place, int) else f"layer: {place}"
        if verdict["estimate"] is None:
            numbers = NOT_COMPUTED
        else:
            name = "p" if verdict["exploratory"] else "adjusted p"
            p = p_value(verdict["p_holm"])
            numbers = (
                f"{verdict['measure']} {number(verdict['estimate'])}, "
                f"{percent(1 - 2 * verdict['alpha'])} interval {between(verdict['interval'])}, "
                f"{name} {p if p[0] in '<>' else f'= {p}'}"
            )
        sentences.append(f"{verdict['id']} ({kind}{where}): {numbers}; {verdict['status']}.")
    return "Results, of all hypotheses. " + " ".join(sentences)


def _software(summary: Mapping[str, Any]) -> str:
    versions = [f"{name} {version}" for name, version in summary["environment"].items()]
    return (
        f"Software: lmfmri {summary['code_version']}; {listed(versions)}. "
        f"Protocol sha256 {summary['protocol_sha256']}, ledger head {summary['ledger_head']}."
    )


def _not_smooth(study: Study) -> str:
    """What is said of measures of which a third of the items was deleted."""
    named = set()
    for one in study.protocol.hypotheses:
        name, _, variable = one.measure.partition(".")
        if not study.analyses[name].measures[variable].smooth:
            named.add(variable)
    if not named:
        return ""
    return f"; of {listed(sorted(named))}, not smooth in its items, a third was deleted"
