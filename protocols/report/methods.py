"""The methods paragraph of a study, written from its protocol, its recordings and its verdicts."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import xarray as xr

from analyses import Analysis
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
    spelled,
)
from protocols.schema import Study
from verification import CONTROLS, Control
from verification.statistics import HALF_SAMPLES

REFERENCES = {
    "probe": (
        "Alain, G. & Bengio, Y. (2016). Understanding intermediate layers using linear classifier "
        "probes. arXiv:1610.01644.",
        "Hastie, T., Tibshirani, R. & Friedman, J. (2009). The Elements of Statistical Learning "
        "(2nd ed.), section 4.2. Springer.",
    ),
    "selectivity": (
        "Spearman, C. (1910). Correlation calculated from faulty data. British Journal of "
        "Psychology 3, 271-295.",
        "Brown, W. (1910). Some experimental results in the correlation of mental abilities. "
        "British Journal of Psychology 3, 296-322.",
    ),
    "judging": (
        "Wu, C. F. J. (1986). Jackknife, bootstrap and other resampling methods in regression "
        "analysis. Annals of Statistics 14, 1261-1295.",
        "Shao, J. & Wu, C. F. J. (1989). A general theory for jackknife variance estimation. "
        "Annals of Statistics 17, 1176-1197.",
    ),
    "holm": (
        "Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian "
        "Journal of Statistics 6, 65-70.",
    ),
    "shuffled_labels": (
        "Phipson, B. & Smyth, G. K. (2010). Permutation P-values should never be zero. "
        "Statistical Applications in Genetics and Molecular Biology 9, article 39.",
    ),
    "untrained_twin": (
        "Zhang, K. & Bowman, S. (2018). Language modeling teaches you more than translation does: "
        "lessons learned through auxiliary syntactic task analysis. "
        "BlackboxNLP 2018, 359-361.",
    ),
}


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
        " ".join(_analysis(name, analysis) for name, analysis in study.analyses.items()),
    ]
    if summary["verdicts"]:
        parts += [_inference(study, summary), _controls(study), _results(summary)]
    return [*parts, _software(summary)]


def references(study: Study, summary: Mapping[str, Any]) -> list[str]:
    """The sources of the methods that this study used, in the order of their authors."""
    used = [next(iter(given)) for given in study.protocol.analyses.values()]
    used += [name for hypothesis in study.protocol.hypotheses for name in hypothesis.controls]
    if summary["verdicts"]:
        used.append("judging")
    if any(not verdict["exploratory"] for verdict in summary["verdicts"]):
        used.append("holm")
    return sorted({source for name in used for source in REFERENCES.get(name, ())})


def summary_line(thing: object) -> str:
    """The first line of the file that an analysis or a control is written in."""
    return (sys.modules[type(thing).__module__].__doc__ or "").strip().split("\n\n")[0]


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
            + (f" in batches of {attrs['batch']}" if "batch" in attrs else "")
            + "."
        )
        if seeds:
            drawn = attrs.get("initialisation", "the initialisation of its library")
            sentences.append(
                f"{capital(spelled(len(seeds)))} untrained "
                f"{'twin' if len(seeds) == 1 else 'twins'} of the same architecture with "
                f"fresh weights ({drawn}; seeds {listed(seeds)}) read the same stimuli."
            )
    proved = [json.loads(volume.attrs["identities"]) for volume in volumes.values()]
    names = list(dict.fromkeys(name for found in proved for name in found))
    if names:
        largest = max(value for found in proved for value in found.values())
        sentences.append(
            f"Before it was recorded, each model had to satisfy {spelled(len(names))} identities "
            f"of its sites ({listed([plain(name) for name in names])}); the largest relative "
            f"deviation was {deviation(largest)}."
        )
    return " ".join(sentences)


def _stimuli(study: Study, volumes: Mapping[str, xr.Dataset]) -> str:
    table, spec, scan = study.stimuli.table, study.protocol.stimuli, study.protocol.scan
    part = (
        ", a stratified part of the set"
        if spec.items is not None or spec.frames is not None
        else ""
    )
    sizes = sorted(
        {(volume.sizes["layer"], volume.sizes.get("unit", 0)) for volume in volumes.values()}
    )
    shape = listed([f"{layers} layers of {units} units" for layers, units in sizes])
    return (
        f"The stimuli were {len(table)} texts of the set '{spec.set}'{part}: "
        f"{table['item'].nunique()} items of {table['category'].nunique()} categories, in "
        f"{counted(table['frame'].nunique(), 'sentence frame')}. Recorded was "
        f"{listed(scan.sites)} at the last token of the target, in all layers ({shape})."
    )


def _analysis(name: str, analysis: Analysis) -> str:
    settings = asdict(analysis)
    kind = type(analysis).__module__.rpartition(".")[2]
    if kind == "probe":
        return (
            f"Linear probes (analysis '{name}'; Alain & Bengio 2016) decoded {settings['label']} "
            f"from {settings['site']} at each layer by ridge regression on the one-hot label "
            f"(Hastie et al. 2009), with penalty {settings['penalty']:g} in units of the mean "
            f"squared length of a training pattern; {settings['item_folds']} groups of items and "
            f"{settings['frame_folds']} of "
            "frames took turns as the test, and neither the items nor the frames of a test were "
            "in its training."
        )
    if kind == "selectivity":
        return (
            f"Selectivity of units (analysis '{name}') for {settings['label']} was d' over items "
            f"in {settings['site']}, after the mean of each frame had been taken out. Over "
            f"{settings['splits']} random halvings of the items we took the share of a category's "
            f"top {settings['top']} units that are found again in the other half, and the "
            "correlation of the whole profile over units, stepped up to all items (Spearman 1910; "
            "Brown 1910)."
        )
    given = listed([f"{plain(key)} {value}" for key, value in settings.items()])
    return f"Analysis '{name}': {summary_line(analysis).rstrip('.')} ({given})."


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
        " before their data were recorded."
        if not exploratory
        else f"; {spelled(exploratory)} of them not before all of the data were recorded, and "
        f"{'is' if exploratory == 1 else 'are'} exploratory."
    )
    if any(hypothesis.at.layer == "selected" for hypothesis in study.protocol.hypotheses):
        words += (
            " Where a layer was selected, it was chosen on a part of the items that was then left "
            "out."
        )
    words += (
        f" Standard errors are from a delete-half jackknife over items, stratified by category "
        f"({HALF_SAMPLES} half-samples; Wu 1986; Shao & Wu 1989), each of which repeats the "
        "whole analysis; frames were not resampled. "
        f"Intervals ({listed([percent(1 - 2 * alpha) for alpha in alphas])}) and one-sided "
        "p-values are by Student's t with items less categories as degrees of freedom"
    )
    if exploratory < len(verdicts):
        words += "; p-values are adjusted for the number of confirmatory hypotheses (Holm 1979)"
    return (
        f"{words}. A claim counts as supported if its p reaches the error rate "
        f"({listed([f'{alpha:g}' for alpha in alphas])}), its estimate reaches the smallest "
        "effect, and every control is passed, and as rejected if one is not; as null if the whole "
        "interval lies below the smallest effect; otherwise as inconclusive; and as invalid where "
        "it could not be judged."
    )


def _controls(study: Study) -> str:
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
        f"registered margin ({margin}; Zhang & Bowman 2018).",
        "shuffled_labels": f"Labels were shuffled among items {fields.get('permutations')} times "
        "(Phipson & Smyth 2010).",
        "surface_only": "The same analysis read families of features of the surface of the words "
        "(counts such as length and frequency, tokens, letters, and all of these) in the place of "
        f"activations, and the strongest had to be exceeded by a margin ({margin}).",
        "split_half": f"Over {fields.get('splits')} halvings of the items, the weaker half had to "
        f"keep, in the median, an effect of at least the margin ({margin}).",
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
