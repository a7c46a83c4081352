"""The methods paragraph of a study, written from its protocol, its recordings and its verdicts."""

import json
import re
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
    shape,
    spelled,
)
from protocols.schema import ScanSpec, Study
from scanner.sites import MEANINGS, OUTSIDE, PAIRED, Kind
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
    "contrast": (
        "Benjamini, Y. & Hochberg, Y. (1995). Controlling the false discovery rate: a practical "
        "and powerful approach to multiple testing. Journal of the Royal Statistical Society B 57, "
        "289-300.",
        "Draper, N. R. & Stoneman, D. M. (1966). Testing for the inclusion of variables in linear "
        "regression by a randomisation technique. Technometrics 8, 695-699.",
        "Westfall, P. H. & Young, S. S. (1993). Resampling-Based Multiple Testing. Wiley.",
        "Winkler, A. M., Ridgway, G. R., Webster, M. A., Smith, S. M. & Nichols, T. E. (2014). "
        "Permutation inference for the general linear model. NeuroImage 92, 381-397.",
    ),
    "localiser": (
        "AlKhamissi, B., Tuckute, G., Bosselut, A. & Schrimpf, M. (2025). The LLM language "
        "network: a neuroscientific approach for identifying causally task-relevant units. "
        "Proceedings of NAACL 2025.",
        "Fedorenko, E., Hsieh, P.-J., Nieto-Castañón, A., Whitfield-Gabrieli, S. & Kanwisher, N. "
        "(2010). New method for fMRI investigations of language: defining ROIs functionally in "
        "individual subjects. Journal of Neurophysiology 104, 1177-1194.",
    ),
    "cka": (
        "Kornblith, S., Norouzi, M., Lee, H. & Hinton, G. (2019). Similarity of neural network "
        "representations revisited. Proceedings of ICML 2019, 3519-3529.",
        "Nguyen, T., Raghu, M. & Kornblith, S. (2021). Do wide and deep networks learn the same "
        "things? Uncovering how neural network representations vary with width and depth. ICLR "
        "2021.",
    ),
    "geometry": (
        "Ethayarajh, K. (2019). How contextual are contextualized word representations? "
        "Proceedings of EMNLP-IJCNLP 2019, 55-65.",
        "Facco, E., d'Errico, M., Rodriguez, A. & Laio, A. (2017). Estimating the intrinsic "
        "dimension of datasets by a minimal neighborhood information. Scientific Reports 7, 12140.",
        "Gao, P., Trautmann, E., Yu, B., Santhanam, G., Ryu, S., Shenoy, K. & Ganguli, S. (2017). "
        "A theory of multineuronal dimensionality, dynamics and measurement. bioRxiv 214262.",
        "Roy, O. & Vetterli, M. (2007). The effective rank: a measure of effective dimensionality. "
        "15th European Signal Processing Conference, 606-610.",
    ),
    "rsa": (
        "Kriegeskorte, N., Mur, M. & Bandettini, P. (2008). Representational similarity analysis - "
        "connecting the branches of systems neuroscience. Frontiers in Systems Neuroscience 2, 4.",
        "Walther, A., Nili, H., Ejaz, N., Alink, A., Kriegeskorte, N. & Diedrichsen, J. (2016). "
        "Reliability of dissimilarity measures for multi-voxel pattern analysis. NeuroImage 137, "
        "188-200.",
        "Schütt, H. H., Kipnis, A. D., Diedrichsen, J. & Kriegeskorte, N. (2023). Statistical "
        "inference on representational geometries. eLife 12, e82566.",
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
    sentences += [_identities(volumes), _sharing(volumes)]
    return " ".join(sentence for sentence in sentences if sentence)


def _narrower(attrs: Mapping[str, Any]) -> bool:
    """Whether the numbers of a volume are not those that were computed."""
    return attrs.get("store") == "float16" and attrs["dtype"] != "float16"


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
    part = (
        ", a stratified part of the set"
        if spec.items is not None or spec.frames is not None
        else ""
    )
    sentences = [
        f"The stimuli were {len(table)} texts of the set '{spec.set}'{part}: "
        f"{table['item'].nunique()} items of {table['category'].nunique()} categories, in "
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


def _probe(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Linear probes (analysis '{name}'; Alain & Bengio 2016) decoded {settings['label']} "
        f"from {settings['site']} at each layer by ridge regression on the one-hot label "
        f"(Hastie et al. 2009), with penalty {settings['penalty']:g} in units of the mean "
        f"squared length of a training pattern; {settings['item_folds']} groups of items and "
        f"{settings['frame_folds']} of "
        "frames took turns as the test, and neither the items nor the frames of a test were "
        "in its training."
    )


def _selectivity(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Selectivity of units (analysis '{name}') for {settings['label']} was d' over items "
        f"in {settings['site']}, after the mean of each frame had been taken out. Over "
        f"{settings['splits']} random halvings of the items we took the share of a category's "
        f"top {settings['top']} units that are found again in the other half, and the "
        "correlation of the whole profile over units, stepped up to all items (Spearman 1910; "
        "Brown 1910)."
    )


def _contrast(name: str, settings: Mapping[str, Any]) -> str:
    confounds = listed(list(settings["confounds"]))
    return (
        f"A linear model of one mean for each {settings['label']} (analysis '{name}') gave "
        f"each unit of {settings['site']} the t of the contrast '{settings['contrast']}' over "
        "items, after the mean of each frame "
        + (f"and {confounds} " if confounds else "")
        + "had been taken out. The largest |t| over the units of a layer, in "
        f"{settings['permutations']} permutations of items (Draper & Stoneman 1966; Winkler et "
        f"al. 2014), gave p-values at a familywise error of {settings['alpha']:g} (Westfall & "
        "Young 1993); false discoveries were held to the same rate (Benjamini & Hochberg 1995)."
    )


def _localiser(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"A localiser (analysis '{name}'; Fedorenko et al. 2010; AlKhamissi et al. 2025) chose "
        f"the {percent(settings['mask'])} of the units of {settings['site']} with the largest "
        f"contrast '{settings['contrast']}' in one half of the items, and measured their "
        "response in the other half, in standard deviations of an item within its category, "
        f"over {settings['splits']} random halvings."
    )


def _topography(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Topography (analysis '{name}'; Yarrow et al. 2014) was the mean squared correlation "
        f"of the tuning of two units of {settings['site']} to {settings['label']}, as a "
        "product of correlations between four parts of the items (over "
        f"{settings['splits']} random divisions), within heads, between them and by distance "
        f"in a head, against {settings['permutations']} random orders of the units; "
        "and Moran's I (Moran 1950) of the size of responses along the units of a head."
    )


def _rsa(name: str, settings: Mapping[str, Any]) -> str:
    distances = {
        "crossnobis": "cross-validated squared distances of items between "
        f"{settings['frame_folds']} groups of frames (Walther et al. 2016), units scaled by "
        "their spread over stimuli and not whitened",
        "euclidean": "squared Euclidean distances of items, units scaled by their spread over "
        "stimuli",
        "correlation": "correlation distances of items, units scaled by their spread over stimuli",
    }
    comparisons = {
        "spearman": "Spearman's correlation",
        "corr": "Pearson's correlation",
        "rho-a": "rho-a (Schütt et al. 2023)",
    }
    confounds = listed(list(settings["confounds"]))
    return (
        f"Representational similarity (analysis '{name}'; Kriegeskorte et al. 2008) compared, "
        f"at each layer of {settings['site']}, {distances[settings['distance']]}, with those "
        f"of {settings['label']} by {comparisons[settings['comparison']]}"
        + (f", and again with {confounds} taken out." if confounds else ".")
    )


def _cka(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"The similarity of every two layers (analysis '{name}') was the debiased linear "
        f"centred kernel alignment (Kornblith et al. 2019; Nguyen et al. 2021) of "
        f"{settings['site']} over items."
    )


def _geometry(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Geometry (analysis '{name}') described the activations of {settings['site']} at each "
        "layer: length, mean cosine of two stimuli (Ethayarajh 2019), effective rank (Roy & "
        "Vetterli 2007), participation ratio (Gao et al. 2017), each also without units more "
        "than ten times as large as the median unit, and intrinsic dimension (Facco et al. "
        "2017)."
    )


_PROSE = {
    "probe": _probe,
    "selectivity": _selectivity,
    "contrast": _contrast,
    "localiser": _localiser,
    "topography": _topography,
    "rsa": _rsa,
    "cka": _cka,
    "geometry": _geometry,
}


def analysis_in_words(name: str, analysis: Analysis) -> str:
    """What an analysis does with which settings, by the protocol's name for it."""
    settings = asdict(analysis)
    kind = type(analysis).__module__.rpartition(".")[2]
    if kind in _PROSE:
        return _PROSE[kind](name, settings)
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
