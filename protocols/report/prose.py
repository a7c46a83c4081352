"""What each analysis did, in the words of a methods section."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from analyses import Analysis
from analyses.features import SAME
from protocols.report.words import listed, percent, plain, spelled


def summary_line(thing: object) -> str:
    """The first line of the file that an analysis or a control is written in."""
    return (sys.modules[type(thing).__module__].__doc__ or "").strip().split("\n\n")[0]


def _probe(name: str, settings: Mapping[str, Any]) -> str:
    models = {
        "ridge": "ridge regression on the one-hot label (Hastie et al. 2009)",
        "logistic": "multinomial logistic regression",
        "one_vs_rest": "logistic regression of each category against the rest",
    }
    others = [f"{one:g}" for one in settings["penalties"]]
    return (
        f"Linear probes (analysis '{name}'; Alain & Bengio 2016) decoded {settings['label']} "
        f"from {settings['site']} at each layer by {models[settings['model']]}, "
        f"with penalty {settings['penalty']:g} in units of the mean "
        f"squared length of a training pattern"
        + (f" (and, to be seen beside it, {listed(others)})" if others else "")
        + f"; {settings['item_folds']} groups of items and {settings['frame_folds']} of "
        "frames took turns as the test, and neither the items nor the frames of a test were "
        "in its training."
    )


def _time_course(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"The time course of {settings['label']} (analysis '{name}') was read from "
        f"{settings['site']} by a ridge probe at each of {settings['before']} tokens before to "
        f"{settings['after']} after the last one of the target, with items and frames kept out of "
        "training as above."
    )


def _control_task(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"The control task (analysis '{name}'; Hewitt & Liang 2019) gave each item a random label, "
        f"{settings['tasks']} times, and read {settings['site']} of the same items in other frames "
        f"({settings['frame_folds']} groups in turn), beside {settings['label']} read alike."
    )


def _span(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"The span of {settings['label']} in {settings['site']} (analysis '{name}') is the share "
        "of layers in which it is read better than in any layer with shuffled labels "
        f"({settings['permutations']} permutations of items, familywise error "
        f"{settings['alpha']:g}; Westfall & Young 1993), of the layers and of their change since "
        "the first."
    )


def _retention(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Retention (analysis '{name}') is the skill of a multinomial logistic regression of "
        f"{settings['label']} on {settings['site']} over that of one for each category against "
        f"the rest, over items, with {settings['item_folds']} groups of items as tests in turn."
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


def _abstraction(name: str, settings: Mapping[str, Any]) -> str:
    confounds = listed([plain(one) for one in settings["confounds"]])
    return (
        f"How far each layer of {settings['site']} has gone from spelling to meaning (analysis "
        f"'{name}') is the partial rank correlation of distances of items ({settings['distance']}, "
        f"{settings['frame_folds']} groups of frames; Walther et al. 2016) with "
        f"{settings['label']}, letters taken out, less that with the share of pairs of letters "
        f"that two words do not have in common, {settings['label']} taken out"
        + (f"; {confounds} taken out of both." if confounds else ".")
    )


def _groupings(name: str, settings: Mapping[str, Any]) -> str:
    confounds = listed(["letters", *(plain(one) for one in settings["confounds"])])
    return (
        f"Two groupings of the items, by {settings['label']} and by {settings['rival']}, were held "
        f"against each other at each layer of {settings['site']} (analysis '{name}'): how often a "
        "pair of items that one of them alone puts together is nearer than a pair that neither "
        f"does, by ranks of distances ({settings['distance']}, {settings['frame_folds']} groups of "
        f"frames; Walther et al. 2016) from which what {confounds} predict was taken out."
    )


def _layers_of(settings: Mapping[str, Any]) -> str:
    return "every layer of two subjects" if settings["across"] else "every two layers"


def _cka(name: str, settings: Mapping[str, Any]) -> str:
    kernel = (
        "linear" if settings["kernel"] == "linear"
        else f"a Gaussian kernel of {settings['width']:g} median distances:"
    )  # fmt: skip
    return (
        f"The similarity of {_layers_of(settings)} (analysis '{name}') was the debiased {kernel} "
        f"centred kernel alignment (Kornblith et al. 2019; Nguyen et al. 2021) of "
        f"{settings['site']} over items, also without units of outlying spread (Davari et al. "
        "2022)."
    )


def _similarity(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"The similarity of {_layers_of(settings)} of {settings['site']} over items (analysis "
        f"'{name}') was also measured by Procrustes rotation (Schönemann 1966), SVCCA (Raghu et "
        "al. 2017) and PWCCA (Morcos et al. 2018), of as many principal components as "
        f"{percent(settings['components'])} of the items, fitted on some items and judged on "
        f"others ({settings['item_folds']} groups in turn), and by the share of the "
        f"{settings['neighbours']} nearest items by cosine that are the same (Huh et al. 2024); "
        "each also without units of outlying spread."
    )


def _universality(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"The likeness of two models (analysis '{name}') in {settings['site']} over items was the "
        "debiased centred kernel alignment (Kornblith et al. 2019; Song et al. 2012), the rank "
        "correlation of cosine distances (Kriegeskorte et al. 2008) and, of the nearest "
        f"{percent(settings['neighbours'])} of items by cosine, the share that is the same (Huh et "
        "al. 2024), less chance, each with the layer of the other model, of "
        f"{settings['depths']} through its depth, that was most alike in other items "
        f"({settings['splits']} halvings), without units of outlying spread (Davari et "
        "al. 2022). Depths were matched by dynamic programming (Sakoe & Chiba 1978)."
    )


def _matching(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Units of {settings['site']} of two models (analysis '{name}') were matched one to one in "
        f"half of the items ({settings['splits']} halvings) so that their correlations were "
        "greatest (Li et al. 2016; Lan et al. 2024), with the layer of the other model, of "
        f"{settings['depths']} through its depth, where these were greatest, and correlated in the "
        "other half."
    )


def _transfer(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Direction transfer (analysis '{name}'): a ridge probe of {settings['label']} in "
        f"{settings['site']} of one model read the other through a ridge map between the layers "
        "that are most alike (after Lenc & Vedaldi 2015; Bansal et al. 2021), both with penalty "
        f"{settings['penalty']:g} in units of the mean squared length of a training pattern, in "
        f"items that had fitted neither ({settings['item_folds']} groups in turn)."
    )


def _features(name: str, settings: Mapping[str, Any]) -> str:
    layers = listed([str(layer) for layer in settings["layers"]])
    where = f"{settings['site']} at layer {layers}"
    if settings["release"] is not None:
        made = f"the released sparse autoencoder {settings['release']}, {settings['name']}"
    else:
        made = (
            f"a sparse autoencoder of {settings['width']} features, {settings['active']} active ("
            + {
                "topk": "the largest, Gao et al. 2024",
                "jumprelu": "on average, by thresholds, Rajamanoharan et al. 2024",
            }[settings["architecture"]]
            + f"), trained with sae-lens on {settings['tokens']} tokens of "
            + (f"the set {settings['text']}" if settings["text"] else "the stimuli")
            + ", the first of each text left out; untrained twins got one of their own"
        )
    return (
        f"Features (analysis '{name}') of {where} are those of {made} (Bricken et al. 2023; "
        "Cunningham et al. 2023). What is recovered is the share of the surprisal lost with the "
        "mean in the place of the site that is kept with what was rebuilt."
        + (
            ""
            if settings["release"] is not None
            else " Two more, trained on half of the texts and of the tokens each, were matched one "
            f"to one by the cosines of their directions; those of {SAME:g} or more were found "
            "again (Paulo & Belrose 2025)."
        )
    )


def _parcels(name: str, settings: Mapping[str, Any]) -> str:
    made = (
        "heads, each summed up by its first principal component"
        if settings["by"] == "head"
        else f"{settings['count']} clusters of units in each layer (k-means on their correlations, "
        "Craddock et al. 2012), each summed up by the mean of its units in standard deviations"
    )
    return (
        f"Parcels (analysis '{name}') of {settings['site']} are {made}, both over the tokens of "
        f"the set {settings['text']}"
        + ("; those of all layers stand side by side, as layer 0." if settings["across"] else ".")
    )


def _coupling(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"The coupling of {settings['site']} (analysis '{name}') is Spearman's correlation, over "
        "pairs of heads of different layers, of the size of the correlation of their activities "
        "over items with how much of what one writes to the stream the other reads of it by its "
        "queries, keys and values (the size of the product of these maps over that of both, Elhage "
        "et al. 2021), beside its mean over all dealings of heads within their layers, and "
        f"how often one of {settings['draws']} of them has as much."
    )


def _localisation(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Localisation (analysis '{name}') counts the units, and the features of "
        f"'{settings['site']}', that have {percent(settings['share'])} of the squared difference "
        f"between the items of a value of {settings['label']} and the rest; the factor is their "
        f"ratio, beside that for {settings['draws']} dealings of the labels among items."
    )


def _resemblance(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Distances of all models (analysis '{name}') are one less the centred kernel alignment of "
        f"layers of {settings['site']} with the most alike layer of the other in other items "
        f"({settings['splits']} halvings), averaged over layers, both ways; their map is classical "
        "scaling (Torgerson 1952)."
    )


def _rsa_models(name: str, settings: Mapping[str, Any]) -> str:
    where = (
        "all subjects at once, at layers of the same depth" if settings["across"] else "each layer"
    )
    over = "items and subjects" if settings["across"] else "items"
    return (
        f"The distances of items in {settings['site']} ({settings['distance']}) were held against "
        f"models of {listed([plain(one) for one in settings['models']])} (analysis '{name}'; "
        f"{settings['comparison']}), in {where}, with {percent(settings['level'])} intervals from "
        f"{settings['draws']} bootstrap samples of {over} and noise ceilings (Schütt et al. 2023)."
    )


def _geometry(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Geometry (analysis '{name}') described the activations of {settings['site']} at each "
        "layer: length, mean cosine of two stimuli (Ethayarajh 2019), effective rank (Roy & "
        "Vetterli 2007), participation ratio (Gao et al. 2017), each also without units more "
        "than ten times as large as the median unit, and intrinsic dimension (Facco et al. "
        "2017)."
    )


def _mlp_probe(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"A linear and a nonlinear probe (analysis '{name}') decoded {settings['label']} from "
        f"{settings['site']} over items, after the mean of each frame had been taken out: ridge "
        "regression on principal components, and the same with the kernel of a layer of rectified "
        "linear units of infinite width (Neal 1996; Cho & Saul 2009), both tuned over the same "
        "numbers of components and penalties inside the training items; "
        f"{settings['item_folds']} groups of items were tests in turn."
        + (
            " As a positive control the same was done for the product of two planted directions, "
            f"each with {percent(settings['planted'])} of the variance."
            if settings["planted"]
            else ""
        )
    )


def _views(name: str, settings: Mapping[str, Any]) -> str:
    of = "" if settings["of"] is None else f" of {plain(settings['of'])}"
    return (
        f"Items{of} were drawn in a plane at {settings['layers']} layers of {settings['site']} "
        f"(analysis '{name}') by UMAP (McInnes et al. 2018; {settings['neighbours']} neighbours, "
        f"least distance {settings['min_dist']:g}, cosine) and by principal components, after the "
        "mean of each frame and the units of outlying spread had been taken out. Silhouette "
        "(Rousseeuw 1987) and purity of neighbours are those of all units; planes were judged by "
        f"trustworthiness (Venna & Kaski 2001) and by the likeness of {settings['seeds']} seeds."
    )


def _collapse(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"A collapse in the middle of the layers of {settings['site']} (analysis '{name}') was "
        "searched for in the effective rank of patterns (Roy & Vetterli 2007), with and without "
        f"units of outlying spread, and in the intraclass correlation of {settings['label']}: the "
        "layers of a dip were chosen on one half of the items and measured on the other, over "
        f"{settings['splits']} random halvings."
    )


def _number_line(name: str, settings: Mapping[str, Any]) -> str:
    asked, halved = settings["label"], "frames"
    patterns = "the mean pattern of each value, after the mean of each frame had been taken out"
    if settings["of"] is not None:
        asked, halved = f"the {settings['number']} of {settings['of']}", "items"
        patterns = (
            f"the patterns of each item of {settings['of']} by itself, and averaged over them"
        )
    return (
        f"Whether {asked} lies along a line in {settings['site']} (analysis '{name}') "
        f"was asked of {patterns}"
        f": by reading it with ridge regression and by predicting patterns from it, with a line "
        f"and with a cubic spline of {settings['knots']} knots (Eilers & Marx 1996), in values not "
        f"seen in training ({settings['value_folds']} groups in turn). Breaks were searched for "
        f"between all neighbouring values by squared distances between halves of the {halved}, "
        f"with a familywise error of {settings['alpha']:g} from {settings['permutations']} worlds "
        "in which the deviations of values from the spline were dealt out anew (Westfall & Young "
        "1993)."
    )


def _discontinuity(name: str, settings: Mapping[str, Any]) -> str:
    known = listed([
        f"a cubic spline of {settings['knots']} knots along the numbers", "their last digits",
        *(plain(one) for one in settings["confounds"]),
    ])  # fmt: skip
    return (
        f"Whether {settings['number']}s of {settings['of']} break at {settings['at']:g} in "
        f"{settings['site']} (analysis '{name}') was asked of the changes between neighbouring "
        f"numbers within each sentence, after what {known} predict had been taken out. Of what a "
        f"sentence of {settings['of']} changes beyond sentences of each other "
        f"{settings['label']} (Ashenfelter & Card 1985), the share that its sentences have in "
        "common, from products of different sentences (Walther et al. 2016), was held against that "
        f"between all other neighbours: the measure is by how much it lies above what all but "
        f"{percent(settings['rarer'])} of them have."
    )


def _circularity(name: str, settings: Mapping[str, Any]) -> str:
    if settings["of"] is not None:
        return (
            f"Whether each {settings['number']} of {settings['of']} leads round a circle in "
            f"{settings['site']} (analysis '{name}') was asked of each item by itself, and "
            "averaged over items: of the distances between all its values, by their rank "
            "correlation with distances on a line, on an arch that goes three quarters round "
            "(less far where values are five or six) and on a circle, by how near the last is to "
            "the first, and by how long a loop lives (persistent homology; Edelsbrunner et al. "
            "2002; Bauer 2021). The ends of a line can bend towards each other (Diaconis et al. "
            "2008)."
        )
    return (
        f"Whether the values of {settings['label']} close a circle in {settings['site']} (analysis "
        f"'{name}') was asked of cross-validated distances between all of them (Walther et al. "
        "2016): by their rank correlation with distances on a line, on an arch that goes three "
        "quarters round (less far where values are five or six) and on a circle, by how near the "
        "last is to the first, and by how long a loop lives (persistent homology; Edelsbrunner et "
        "al. 2002; Bauer 2021); and of the angles "
        "of values in the plane of the first two principal components of one half of the frames, "
        "seen in the other (Fisher 1993). The ends of a line can bend towards each other "
        "(Diaconis et al. 2008)."
    )


def _rank(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"How many directions a category takes (analysis '{name}') was found by iterative "
        f"nullspace projection (Ravfogel et al. 2020) in {settings['site']}, over items after the "
        "mean of each frame had been taken out: a ridge probe told the category from the rest, its "
        f"direction was removed, and another was trained, up to {settings['limit']} times, with "
        f"{settings['item_folds']} groups of items as tests in turn; chance was the largest of "
        f"{settings['shuffles']} runs with {settings['label']} shuffled among items. Beside it, "
        "intact probes read other items after least-squares concept erasure (Belrose et al. 2023)."
    )


def _dimensionality(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"The dimensions of {settings['site']} (analysis '{name}') were counted by the "
        "participation ratio (Gao et al. 2017) of cross-validated variances (Stringer et al. "
        "2019): of the items of a category between halves of the frames, and of the means of "
        f"{settings['label']} between halves of the items, over up to {settings['splits']} "
        "halvings, units scaled by their spread over items."
    )


def _connectome(name: str, settings: Mapping[str, Any]) -> str:
    strong = "largest" if settings["sign"] == "positive" else "largest in size"
    densities = listed([f"{100 * one:g}" for one in settings["densities"]])
    shrunk = ", after shrinkage (Ledoit & Wolf 2004)," if settings["edges"] != "correlation" else ""
    text = (
        f"The functional connectome of {settings['site']} (analysis '{name}') had up to "
        f"{settings['nodes']} units of a layer, drawn at random, as nodes; edges were the {strong} "
        f"{settings['edges']}s over items (nilearn{shrunk}), after the mean of each frame had been "
        f"taken out, at densities of {densities} %, over which everything was averaged. Modules "
        "were found by the Louvain method (Blondel et al. 2008) in one half of the "
        "items, and their modularity (Newman & Girvan 2004) measured in the other; so was that of "
        "all edges with their signs (Rubinov & Sporns 2011). The small-world "
        "ratio (Humphries & Gurney 2008), with harmonic means of path lengths, and the rich club "
        f"(van den Heuvel & Sporns 2011) are beside {settings['rewirings']} graphs of the same "
        "degrees (Maslov & Sneppen 2002). Omega (Telesford et al. 2011) and small-world propensity "
        "(Muldoon et al. 2016) place graphs between these and a ring of neighbours; roles of hubs "
        "are those of Guimerà & Amaral (2005)."
    )
    if not settings["nulls"]:
        return text
    return (
        f"{text} Beside each graph stand {settings['nulls']} of each of four kinds at random: "
        "rewired, of items permuted unit by unit, of correlations with the same mean and variance "
        "(Hirschberger et al. 2007), and of units in a basis at random, which keeps "
        "the covariance of the layer (Stewart 1980)."
    )


def _fingerprint(name: str, settings: Mapping[str, Any]) -> str:
    edges = {
        "correlation": "correlations",
        "partial correlation": "partial correlations",
        "tangent": "differences from the middle of all networks in its tangent space (Varoquaux et "
        "al. 2010)",
    }
    return (
        f"The network of each {settings['label']} (analysis '{name}') was that of up to "
        f"{settings['nodes']} units of {settings['site']}, drawn at random, over its items in a "
        f"half: {edges[settings['edges']]} (nilearn), of covariances after shrinkage (Ledoit & "
        f"Wolf 2004). Over {settings['splits']} halvings each was held against the networks of all "
        "in the other half (Finn et al. 2015)."
    )


def _participation(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Over how many units of {settings['site']} the direction of a category spreads (analysis "
        f"'{name}') was the participation ratio (Gao et al. 2017) of the mean of its items less "
        "that of all others, with second and fourth powers as products of four parts of the items "
        f"(over {settings['splits']} random divisions), relative to a random direction."
    )


def _lesion(name: str, settings: Mapping[str, Any]) -> str:
    layers = "a layer" if settings["span"] == 1 else f"{spelled(settings['span'])} layers in a row"
    gone = "left out"
    if settings["left"] == "mean":
        gone = "replaced by what it adds to unrelated sentences on average (first token excepted)"
    text = (
        f"What the {listed(list(settings['parts']), 'or')} of {layers} is needed for (analysis "
        f"'{name}'; Lad et al. 2024; Gromov et al. 2024) was the divergence of the prediction "
        f"after a text from the intact one when it was {gone}, and the rise of the surprisal of "
        "the text's tokens; means over the frames of an item, then over items, with Student's "
        f"intervals at {percent(settings['level'])}, and by {settings['label']}."
    )
    text += (
        f" What {settings['category']} lose beside the rest is the difference of the means of the "
        f"logarithm of the divergence over items, without the {settings['parts'][0]}; it was held "
        f"against {settings['random']} dealings of {settings['label']} among the items."
    )
    if settings["heads"]:
        text += " Heads were left out one at a time, by setting what they give to zero."
    if settings["between"] is None:
        return text
    first, second = settings["between"]
    return (
        f"{text} A double dissociation of {first} and {second} (Shallice 1988) is one layer in "
        "which Welch's t of the logarithm of the divergence is large, and another one in which it "
        "is as large the other way; its p is the larger of the two, each of the largest t over "
        f"layers in {settings['permutations']} dealings of the two categories among their items "
        "(Berger 1982; Westfall & Young 1993)."
    )


_WAYS = {
    "mean_difference": "the differences of the means of items",
    "probe": "the weights of a ridge probe",
    "leace": "least-squares concept erasure (Belrose et al. 2023)",
    "subspace": "the weights of ridge probes, each trained on what those before it leave (Ravfogel "
    "et al. 2020)",
    "units": "the units of largest d'",
    "features": "what the features of largest d' write, of a dictionary of the same site",
}
_LEFT = {
    "mean": "their mean over training stimuli",
    "zero": "nothing",
    "resample": "what a training stimulus has there, drawn for each text",
}
_RANDOM = (
    "directions drawn from a power of the covariance of the activations, the power so chosen that "
    "as much variance goes with them"
)


def _ablation(name: str, settings: Mapping[str, Any]) -> str:
    what = settings["category"] or "all values"
    random = settings["random"]
    return (
        f"What carries {what} of {settings['label']} in {settings['site']} (analysis '{name}'; "
        f"Elazar et al. 2021) was found by {_WAYS[settings['way']]} in training items and taken "
        f"out at the tokens of the target in layers {listed(_numbers(settings['layers']))}; in "
        f"its place was {_LEFT[settings['left']]}. A ridge probe read the label from the same kind "
        f"of site {listed(_numbers(settings['later']))} blocks later in other items "
        f"({settings['item_folds']} groups), trained on intact activations (frozen) or on those "
        f"that are left (refitted). The same was done to {random} {_RANDOM}; to these made so "
        f"strong that unrelated sentences diverge as much; to what {random} dealings of the labels "
        "among items give; and to that of other categories, where one is taken out. After the "
        "text, the logits of other words of the category were held against those of the rest."
    )


def _patching(name: str, settings: Mapping[str, Any]) -> str:
    other = "clean" if settings["into"] == "corrupt" else "corrupt"
    return (
        f"Activations of the {other} text of each pair were set into the {settings['into']} one "
        f"(analysis '{name}'; Vig et al. 2020; Zhang & Nanda 2024): "
        f"{listed(list(settings['sites']))}, in each layer and at the "
        f"{listed(list(settings['places']))} token, one at a time. The share is the slope through "
        "0, by least squares over pairs, of what that changes in the difference of the logits of "
        "the two answers on what the other text changes. For the first of these, "
        f"{settings['random']} activations of texts with the answer that is there already, and as "
        "many steps as long as the patch along the difference of two such texts, were set in, too. "
        "Each patch was estimated, besides, as its difference times the gradient (Nanda 2023)."
    )


def _paths(name: str, settings: Mapping[str, Any]) -> str:
    other = "clean" if settings["into"] == "corrupt" else "corrupt"
    what = {"attn_out_post": "attention", "mlp_out_post": "MLP"}[settings["sender"]]
    receiver = "the prediction"
    if settings["at"] is not None:
        head = "" if settings["head"] is None else f"head {settings['head']} of "
        receiver = f"{head}{settings['receiver']} of layer {settings['at']}"
    return (
        f"What the {what} of each layer adds to the stream at the {settings['place']} token was "
        f"exchanged for what it adds in the {other} text of the pair (analysis '{name}'; Wang et "
        f"al. 2023; Goldowsky-Dill et al. 2023), as {receiver} alone sees it: all else added what "
        f"it adds in the {settings['into']} text. The share is the slope through "
        "0, by least squares over pairs, of what that changes in the difference of the logits of "
        "the two answers on what the other text changes. The same was sent from "
        f"{settings['random']} other texts with the answer that is there already."
    )


def _neurons(name: str, settings: Mapping[str, Any]) -> str:
    by = {
        "activation": "mean activation",
        "magnitude": "mean absolute activation",
        "contribution": "mean absolute activation times the length of what it writes",
        "selectivity": f"largest |d'| between values of {settings['label']}",
        "mean_size": "size of their mean activation",
        "frequency": "how often their gate is open",
    }
    first, *more = settings["shares"]
    span = "to the end" if settings["span"] is None else f"and {settings['span'] - 1} more"
    within = "each layer" if settings["within"] == "layer" else "all these layers"
    left = "zero" if settings["left"] == "zero" else "their mean over these items"
    others = listed([percent(one) for one in more])
    return (
        f"Neurons (the input of the MLP's last projection; analysis '{name}'; Tanwar et al. 2025) "
        f"were ranked in training items by {by[settings['by']]}, and the top {percent(first)} of "
        f"{within}, from layer {listed(_numbers(settings['layers']))} {span}, were set to {left} "
        "at every token but the first, in other items "
        f"({settings['item_folds']} groups). Both texts of each pair were asked; a text is "
        "answered if the logit of its answer is above that of the other. Beside it the same was "
        "done to as "
        "many neurons of each layer at random, and to as many as write as much to the stream "
        f"({settings['random']} draws each)"
        + (", to those of labels dealt out anew" if settings["by"] == "selectivity" else "")
        + "; and, to be seen beside it, to neurons ranked each other way"
        + (f", and to {others} of them." if more else ".")
    )


def _domain_neurons(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"{_neurons(name, settings)} Only training items of {settings['domain']} "
        f"({settings['label']}) chose the neurons, and answers of all were asked: the drop of "
        "accuracy there less that in the rest is what is claimed."
    )


_PUT = {
    "plain": "as they stand, an option being what follows",
    "letters": "with their options behind letters, a letter being what follows",
    "reasoned": "under the system prompt of Tanwar et al. (2025), which asks for thoughts in tags, "
    "then 'Answer: [X]', and nothing more",
}


def _left_out(settings: Mapping[str, Any]) -> str:
    part, layers = settings["left_out"], listed(_numbers(settings["layers"]))
    if part == "nothing":
        return ""
    return f" Meanwhile the {part} of layer {layers} was left out at every token but the first."


def _choices(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Questions (analysis '{name}'; Tanwar et al. 2025) were put {_PUT[settings['prompt']]}, "
        "by lm-evaluation-harness (Gao et al. 2024) around the model in the scanner. A question is "
        "answered right if its right option is likelier than every other, by the sum of the "
        "logarithms of the probabilities of its tokens, and, normed, by that over its number of "
        "letters. Shares are of items, the mean over the questions of each; their interval is "
        "after Wilson (1927). Beside it stand right answers dealt out anew among the options by "
        "item, and the options of each item after the question about another one of its category "
        f"({settings['random']} draws each).{_left_out(settings)}"
    )


def _replies(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Questions (analysis '{name}'; Tanwar et al. 2025) were put {_PUT[settings['prompt']]}, "
        f"and up to {settings['tokens']} tokens were said by the likeliest one after the other "
        "(lm-evaluation-harness, Gao et al. 2024, around the model in the scanner). A reply is "
        "right if it names the right option; one that names none is wrong. ROUGE-1 (Lin 2004) is "
        "the F1 of the words that it has in common with the answer, lower case, without stemming. "
        "Three instructions were checked: thoughts between tags, once; one answer in the given "
        "format; an end behind it. Beside it stand right answers dealt out anew and replies to the "
        f"question about another item ({settings['random']} draws each), and, for the "
        "instructions, what is said where their words are in another order, and without them."
        f"{_left_out(settings)}"
    )


def _standings(name: str, settings: Mapping[str, Any]) -> str:
    score = "whether they are right" if settings["score"] is None else settings["score"]
    return (
        f"Subjects were held against each other in what '{settings['site']}' found (analysis "
        f"'{name}'): {score}, item by item, with an interval by bootstrap over items, the p of "
        "changing the signs of items at random, and McNemar's exact test (McNemar 1947) of items "
        "that one answers and the other does not. A normalised score is that of one over that of "
        "another (Tanwar et al. 2025). Nothing is claimed of it."
    )


def _steering(name: str, settings: Mapping[str, Any]) -> str:
    doses = listed([f"{dose:+g}" for dose in settings["doses"]])
    return (
        f"Directions of {settings['label']} (analysis '{name}'; Turner et al. 2023) were found by "
        f"{_WAYS[settings['way']]} in training items and added to {settings['site']} in layers "
        f"{listed(_numbers(settings['layers']))} at every token but the first, {doses} standard "
        "deviations of the training stimuli along them, while texts were read up to their target. "
        "The slope is that of the logit of a held-out item's first token over those of items of "
        "other categories, through the origin. Held against it are those of other categories, "
        f"{_RANDOM}, these so strong that predictions diverge as much, and what labels dealt out "
        "anew give; each category of a random target has another direction."
    )


def _stitching(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"What {settings['donor']} has in {settings['site']} at the target was carried into the "
        "other model by a ridge map that was fitted on other items "
        f"({settings['item_folds']} groups) and set into layers "
        f"{listed(_numbers(settings['layers']))} (model stitching, analysis '{name}'; Lenc & "
        "Vedaldi 2015; Bansal et al. 2021). The layer of the donor, of "
        f"{settings['depths']} through its depth, and the penalty were those that carry most "
        "variance between halves of the items that fit. What is kept is one less the divergence of "
        "the prediction of the next token, over that with the mean of these items in the same "
        "frame, which is taken from all that is carried. Held against "
        f"it are {settings['random']} maps of items dealt out anew, the same map given another "
        f"word ({settings['random']} draws), and maps from untrained twins of the donor."
    )


def _gates(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Gates of MLPs, open where what enters the activation function is above 0, were held "
        f"against those of {settings['donor']} at the same tokens, all but the first of each text "
        f"(analysis '{name}'; Tanwar et al. 2025): the share that is open in one of the two alone "
        "(Hamming), that over the share in independent patterns with as many open ones, and, at "
        f"{settings['sampled']} tokens of each text at most, Levenshtein's distance over the "
        "number of neurons. A neuron is loud above "
        f"{settings['loud']:g} root mean squares of its token. Held against the tuning are "
        f"{settings['random']} draws of Gaussian noise as long as its change of each tensor, and "
        f"{settings['random']} of its changes dealt out anew within each tensor; to untrained "
        "twins the change of weights was added. Beside it stand the variant with its neurons dealt "
        "out anew, and the base model at a token half a batch away."
    )


def _circuits(name: str, settings: Mapping[str, Any]) -> str:
    other = "clean" if settings["into"] == "corrupt" else "corrupt"
    way = "Spearman's correlation" if settings["by"] == "spearman" else "the cosine"
    return (
        f"What activations of the {other} text of each pair would do in the {settings['into']} one "
        f"(analysis '{name}'; attribution patching, Nanda 2023; compared by eye in Tanwar et al. "
        f"2025) was mapped in each model: {listed(list(settings['sites']))}, by layer and by "
        f"stretch of the text (the target, {spelled(settings['segments'])} parts of what follows, "
        "the last token), each cell as the share of the way from one answer to the other. The "
        f"likeness is {way} of the map of a model with that of {settings['donor']} over all cells; "
        f"its ceiling that of halves of the items in one model ({settings['splits']} splits). Held "
        f"against it are {settings['random']} maps of {settings['donor']} with its stretches dealt "
        "out anew in each layer, and as many of pairs of another category; untrained twins were "
        f"held against {settings['donor']} as it is. Of {settings['checked']} pairs estimates were "
        "held against true patches."
        + (
            " Both models were mapped in the conversation of the variant's chat template, too."
            if settings["template"]
            else ""
        )
    )


def _along(settings: Mapping[str, Any]) -> str:
    return (
        f"Directions of {settings['label']} in {settings['site']} were found by "
        f"{_WAYS[settings['way']]} in training items ({settings['item_folds']} groups)"
    )


_BESIDE = (
    f"Held against it are those of other categories, {_RANDOM}, and what labels dealt out anew "
    "give; each category of a random target has another direction."
)


def _bus(name: str, settings: Mapping[str, Any]) -> str:
    sizes = listed([f"{size:g}" for size in settings["sizes"]])
    blocks = spelled(settings["blocks"])
    return (
        f"{_along(settings)} and added at the target behind each of {blocks} blocks, from layers "
        f"{listed(_numbers(settings['layers']))} on, {sizes} median lengths of the stream at a "
        f"time, and {blocks} times as much at once behind the first (analysis '{name}'; Elhage et "
        "al. 2021). Without the copy of the vector that each block hands on, the additivity is one "
        "less the length of the difference of the two changes over that of the change by all at "
        f"once, each summed over stimuli, behind the last block and for the first size. {_BESIDE}"
    )


def _scaling(name: str, settings: Mapping[str, Any]) -> str:
    factors = listed([f"{factor:g}" for factor in settings["factors"]])
    return (
        f"{_along(settings)}; at the target, behind which texts were cut off, the component along "
        "the direction of the target's category, from the mean of the training stimuli on, was "
        f"multiplied by {factors} in layers {listed(_numbers(settings['layers']))}, and so was all "
        f"of the stream (analysis '{name}'; Zhang & Sennrich 2019). The slope is that of the "
        "logits of other held-out words of the category over those of words of other categories, "
        "on the factor less one, through the origin. The direct path is the same vector added "
        f"behind the last block. {_BESIDE} Where the stream is scaled, a vector along them as long "
        "as what that adds is added."
    )


def _knowledge_map(name: str, settings: Mapping[str, Any]) -> str:
    slopes = (
        "The mean absolute product of weight and gradient of the answer's surprisal in a block (of "
        "its attention and its MLP, and of each alone), what that explains taken out (Simonyan et "
        "al. 2014), the"
        if settings["gradients"]
        else "No gradients were asked for. The"
    )
    return (
        f"Where the model has what it knows of each {settings['label']} (analysis '{name}'; "
        "Marinescu et al. 2026) was looked at through "
        f"{'four' if settings['gradients'] else 'three'} lenses, in texts that are halves of "
        f"pairs. Silhouettes (Rousseeuw 1987) of items by {settings['group']} within their "
        f"{settings['label']} in all units of {settings['site']}, and their rise over layers, were "
        f"held against {settings['dealings']} dealings of the groups. {slopes} "
        "logarithm of the divergence of the next token without the "
        "block (Lad et al. 2024), and the share of the way from the foil to the answer that "
        f"{settings['site']} at the target goes in the other text (Meng et al. 2022) were held "
        f"against those of {settings['rest']} by Student's t over items. A layer is taken if it "
        "exceeds what the largest of all layers reaches in dealings of the items, at an alpha of "
        f"{settings['alpha']:g} for each lens (Westfall & Young 1993). Beside it stands the "
        "published rule: the upper quarter of the smoothed profile, and the three layers of its "
        "steepest rise. Agreement of lenses was tested against profiles turned round by some "
        f"layers (Alexander-Bloch et al. 2018; {settings['permutations']} times)."
    )


def _tuning(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"The answers of {settings['category']} ({settings['label']}) were taught to the weights "
        f"of {'layer' if len(settings['layers']) == 1 else 'layers'} "
        f"{listed(_numbers(settings['layers']))} alone (analysis '{name}'): {settings['steps']} "
        f"steps of AdamW (Loshchilov & Hutter 2019) at a rate of {settings['rate']:g}, each with "
        "all that is taught, in evaluation mode. Frames were parted into "
        f"{spelled(settings['frame_folds'])} groups, each judged after the others had been taught; "
        "the gain is how far the surprisal of the answer falls, in nats, the mean over the frames "
        f"of an item and then over items. {settings['random']} sets of as many other layers, of "
        "the same shape where there is room, were taught the same from the same weights, and so "
        "were untrained twins; the advantage is the gain less the mean of that of the other sets "
        "(which layers gradients or maps name need not be those that are best changed: Lee et al. "
        "2023; Hase et al. 2023; Marinescu et al. 2026). What the answers of the other domains "
        "keep is told in the same way. Items are the sample, given these trainings: with other "
        "items to be taught, a set may learn otherwise."
    )


def _weights(name: str, settings: Mapping[str, Any]) -> str:
    text = (
        f"The weights of {settings['base']} were taken away from those of what was tuned from it, "
        f"matrix by matrix, in float32 (tuning vectors, analysis '{name}'; Ilharco et al. 2023; "
        f"Tanwar et al. 2025), for {listed(list(settings['components']))}. The subspace of a "
        "base's matrix is that of its largest singular values, which leave at most a share of "
        f"{settings['tolerance']:g} squared of its squares; SSA is the share of the squares of a "
        "change that lies inside, among what the matrix gives (left) or takes (right). Chance is "
        "the dimensions of the subspace over all, which a change of any singular values has on "
        "average when it is turned at random; what is beyond chance is told as a share of what "
        "there is beyond it, both summed over matrices. Matrices are the sample: the layers of "
        "each component, of this one training. Beside the change stand "
        f"{settings['random']} of independent normal numbers, as many that are the same change "
        "with rows and columns under each other's names and signs at random"
    )
    if settings["shuffled"] is not None:
        text += f", and that of {settings['shuffled']}, tuned on labels dealt out anew"
    text += (
        "; untrained twins are fresh weights in the place of the base's, with the same change. "
        "Effective rank after Roy & Vetterli (2007)."
    )
    if settings["other"] is not None:
        text += (
            f" The cosine of each change with that of {settings['other']} is held against what it "
            "is on average when rows are dealt out, which is known without drawing; there, twins "
            "are the way from the base to fresh weights."
        )
    return text


def _weight_modules(name: str, settings: Mapping[str, Any]) -> str:
    return (
        f"Each matrix of {listed(list(settings['components']))} was taken for a graph, whose edges "
        "join units that it reads with units that it gives to, as strongly as its weights are "
        f"large (analysis '{name}'; Achterberg et al. 2023; Liu et al. 2023); of more than "
        f"{settings['nodes']} units on a side as many were drawn at random. Modularity is the "
        "largest that was found by the Louvain method (Blondel et al. 2008), by a chance that "
        "joins both sides alone (Barber 2007), on average over matrices, which are the sample. "
        f"Beside it stand {settings['random']} graphs of the same weights dealt out among all "
        "places of the matrix, as many of weights dealt out within rows, and the same weights "
        "sorted into four modules."
    )


def _tuning_vector(name: str, settings: Mapping[str, Any]) -> str:
    strengths = listed([f"{one:+g}" for one in settings["strengths"]])
    ways = "as it was taught and in a conversation" if settings["chat"] else "as it was taught"
    against = [*settings["shuffled"], *settings["other"]]
    given = f", with the vectors of {listed(against)}" if against else ""
    return (
        f"The weights of {settings['of']} were moved along what {settings['vector']} differs by "
        f"from it (analysis '{name}'; Ilharco et al. 2023), {strengths} times, and put back bit by "
        f"bit; each time all questions were asked, {ways}. An answer is judged by the share "
        "of its wrong options that it is likelier than, before and after; where the vector is "
        "taken away, by what it loses. Means are over the frames of an item and then over items "
        f"of {settings['category']} ({settings['label']}). The same was done with "
        f"{settings['random']} vectors that were drawn and {settings['random']} whose entries were "
        f"permuted, as long in every weight{given}, and to untrained twins. The tuned model less "
        "its whole vector is the base, weight for weight, whatever was taught, so that what a "
        "model does when it is taken away is asked of the base (where we differ from Tanwar et "
        "al. 2025). Items are the sample, given this training."
    )


def _saliency(name: str, settings: Mapping[str, Any]) -> str:
    summary = {
        "magnitude": "the mean absolute gradient",
        "by_weight": "the mean absolute product of weight and gradient",
        "fisher": "the mean squared gradient",
    }[settings["summary"]]
    text = (
        "Of the surprisal of the target, given what stands before it, gradients were taken with "
        f"respect to the weights of each attention and MLP, stimulus by stimulus (analysis "
        f"'{name}'; Simonyan et al. 2014), and summed up as {summary}. The contrast is the mean "
        f"logarithm of stimuli with {settings['category']} as {settings['label']} less that of the "
        "rest, after the logarithm of the surprisal and the number of tokens predicted had been "
        f"regressed out; beside it are those of {settings['random']} dealings of the labels among "
        "items."
    )
    check = (
        "Maps are held against untrained twins, and against the same model with fresh weights in "
        "its last blocks, more and more of them (cascading randomisation, Adebayo et al. 2018)."
    )
    if not settings["steps"]:
        return f"{text} {check}"
    return (
        f"{text} Integrated gradients (Sundararajan et al. 2017; captum, {settings['steps']} "
        "steps) told what each token before the target adds to its log probability, from the mean "
        "embedding of the vocabulary on, the first token left as it is. {check}"
    )


def _numbers(values: Sequence[int]) -> list[str]:
    return [str(one) for one in values]


_PROSE = {
    "ablation": _ablation,
    "neurons": _neurons,
    "domain_neurons": _domain_neurons,
    "choices": _choices,
    "replies": _replies,
    "standings": _standings,
    "patching": _patching,
    "paths": _paths,
    "steering": _steering,
    "stitching": _stitching,
    "gates": _gates,
    "circuits": _circuits,
    "bus": _bus,
    "knowledge_map": _knowledge_map,
    "tuning": _tuning,
    "weights": _weights,
    "tuning_vector": _tuning_vector,
    "weight_modules": _weight_modules,
    "saliency": _saliency,
    "scaling": _scaling,
    "lesion": _lesion,
    "probe": _probe,
    "selectivity": _selectivity,
    "contrast": _contrast,
    "localiser": _localiser,
    "topography": _topography,
    "abstraction": _abstraction,
    "groupings": _groupings,
    "fingerprint": _fingerprint,
    "rsa": _rsa,
    "rsa_models": _rsa_models,
    "cka": _cka,
    "similarity": _similarity,
    "geometry": _geometry,
    "mlp_probe": _mlp_probe,
    "time_course": _time_course,
    "control_task": _control_task,
    "span": _span,
    "retention": _retention,
    "views": _views,
    "collapse": _collapse,
    "number_line": _number_line,
    "discontinuity": _discontinuity,
    "circularity": _circularity,
    "rank": _rank,
    "dimensionality": _dimensionality,
    "participation": _participation,
    "connectome": _connectome,
    "universality": _universality,
    "transfer": _transfer,
    "resemblance": _resemblance,
    "features": _features,
    "parcels": _parcels,
    "coupling": _coupling,
    "matching": _matching,
    "localisation": _localisation,
}


def analysis_in_words(name: str, analysis: Analysis) -> str:
    """What an analysis does with which settings, by the protocol's name for it."""
    settings = asdict(analysis)
    kind = type(analysis).__module__.rpartition(".")[2]
    if kind in _PROSE:
        return _PROSE[kind](name, settings)
    given = listed([f"{plain(key)} {value}" for key, value in settings.items()])
    return f"Analysis '{name}': {summary_line(analysis).rstrip('.')} ({given})."
