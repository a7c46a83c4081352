"""What analyses found beside the hypotheses: a panel for each of their variables.

A variable is drawn by its dimensions; a new analysis whose results have known ones is shown without
a line here but that of `READING`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses import Analysis
from analyses.base import groups
from analyses.knowledge_map import LAID
from protocols.report import doses, words
from protocols.report.figures import (
    apart,
    bars,
    between_layers,
    by_category,
    by_row,
    circle,
    curve,
    intervals,
    matrix,
    plane,
    ranked,
    table,
)
from protocols.report.layer_maps import centres, lens_maps, side_by_side, subject_maps
from protocols.report.prose import summary_line
from protocols.report.published import Measured
from protocols.schema import Study

# How to read what an analysis gives beside its measures.
READING = {
    "recall": "The share of a category's stimuli that were decoded as that category.",
    "overlap_by_category": "The share of a category's most selective units that are among the most "
    "selective of the other half of the items.",
    "profile_by_category": "The correlation of a category's profile of selectivity over all units "
    "between halves of the items, stepped up to all items.",
    "separation": "How much further the items of a category are from all others than from each "
    "other, over the spread of distances.",
    "rdm": "The mean distance of the items of two categories at layer {layer}; categories that are "
    "close stand side by side. Darker is more.",
    "contrast": "How far two categories are apart at layer {layer}, cross-validated over their "
    "items: 0 on average where items of both are no further from each other than items of one. "
    "Darker is more.",
    "reliability": "The correlation of distances between groups of frames, stepped up to all. Its "
    "root is the most that any model can reach.",
    "ahead": "How much more distances go with what words mean, whatever their letters, than with "
    "their letters, whatever they mean: rank correlations, one less the other.",
    "by_label": "How often two items that the label alone puts together are nearer than two that "
    "neither grouping does.",
    "by_rival": "How often two items that the other grouping alone puts together are nearer than "
    "two that neither does.",
    "rather": "How much more often items are nearer for the label alone than for the other "
    "grouping alone; above 0 they lie by the label rather.",
    "meaning": "The partial rank correlation of the distances of words with what they mean, their "
    "letters taken out.",
    "spelling": "The partial rank correlation of the distances of words with the letters that they "
    "have in common, what they mean taken out.",
    "norm": "The median length of a stimulus.",
    "anisotropy": "The mean cosine of two stimuli: 1 if all point the same way.",
    "effective_rank": "Over how many directions the variance of stimuli is spread, by its entropy.",
    "participation": "The same, as the participation ratio, in which small variances count less.",
    "dimension": "Intrinsic dimension of the items, by their two nearest neighbours.",
    "debiased": "Centred kernel alignment of every two layers: 1 for the same up to rotation and "
    "size, 0 on average for unrelated ones.",
    "plain": "The same without the correction: near 1 for any two layers that have more units than "
    "there are items.",
    "significant": "The share of units whose t is significant, familywise over the units of a "
    "layer: not to find one by luck.",
    "discovered": "The share of units that is found if a share of alpha of them may be false.",
    "divergence": "How far the prediction after the text is from the intact one when a part of the "
    "layer adds nothing, in nats; with an interval over items.",
    "surprisal": "By how much the text itself is harder to predict then, in nats a token.",
    "block_by_category": "The divergence with the whole block left out.",
    "attention_by_category": "The divergence with the attention left out.",
    "mlp_by_category": "The divergence with the MLP left out.",
    "selective_of": "By how much larger, in logarithms, the divergence is for the category than "
    "for the rest, when each part is left out, and on average over dealings of the labels.",
    "heads": "The divergence with a single head of the attention left out.",
    "dissociation": "Welch's t of the logarithm of the divergence between the two categories, over "
    "items: above 0 where a lesion harms the first more, below where it harms the second.",
    "t": "The t of every unit at layer {layer}, in its order, and of untrained twins. Dashed: "
    "what the largest of all units reaches by luck.",
    "response_by_category": "How the chosen units respond to each category, in other items: from "
    "the mean of all categories, in standard deviations of an item.",
    "response_by_mask": "The contrast of the chosen units in other items, by the share of units "
    "that is chosen.",
    "response_to_others": "How the same units respond to other contrasts, in other items: near 0 "
    "if they are specific to their own.",
    "within_heads": "The mean squared correlation of the tuning of two units of one head, without "
    "the noise that they share: 0 on average where nothing is tuned.",
    "between_heads": "The same of units of two heads.",
    "clustering": "How much more alike the units of a head are than those of two heads.",
    "clustering_p": "How often units dealt out among heads at random are clustered as much.",
    "neighbours": "The mean squared correlation of the tuning of two units of a head, by distance.",
    "moran": "Moran's I of the size of responses to a category along the units of a head: 0 where "
    "neighbours are no more alike than others.",
    "outliers": "Units more than ten times as large as the median unit.",
    "auc": "The area under the ROC curve of a category against the rest, mean over categories, "
    "after directions have been removed one after the other, at layer {layer}. Dotted: the largest "
    "with shuffled labels.",
    "directions": "How many directions must go before a category is read no better than with "
    "shuffled labels.",
    "fit": "The correlation of distances with those of each model, with its interval by bootstrap "
    "over items, and over subjects where there are several. Dotted: what a model can reach.",
    "procrustes": "The cosine of two layers after one has been rotated to the other, in items that "
    "did not fit the rotation.",
    "svcca": "The mean correlation of canonical directions, in items that did not fit them.",
    "pwcca": "The same, weighed by how much of the first layer each direction carries.",
    "mutual_neighbours": "The share of the nearest items that are the same in both layers.",
    "read": "The share of the variance of the number that is read in values that no probe has "
    "seen: 0 or below for nothing.",
    "order": "Spearman's correlation of the numbers read with the numbers.",
    "line": "The share of the variance of patterns that a line predicts in values not seen.",
    "spline": "The same of a cubic spline: more, if the way along the numbers is bent.",
    "jump": "The squared distance of patterns of neighbouring values at layer {layer}, by the "
    "lower of the two. Dotted: what the largest of them reaches by luck.",
    "breaks": "How many neighbours are further apart than the largest is by luck.",
    "own_change": "Of what changes in a sentence between neighbouring numbers at layer {layer}, "
    "beyond what changes in sentences of other things, the share that is common to its kind, by "
    "the lower of the two. Dotted: what nineteen of twenty other places stay below.",
    "usual": "What nineteen of twenty places beside the claimed one stay below.",
    "exceeds": "The share of the other places that have less than the claimed one: half by luck.",
    "common_change": "The share of the whole change of a sentence at the claimed place that all "
    "sentences of its kind have.",
    "shared_change": "The share of it that sentences of other things have as well: what the "
    "number does by itself.",
    "on_a_line": "The rank correlation of distances with those on a line.",
    "gain": "How much more of the variance of patterns a spline predicts than a line: above 0, if "
    "the way along the numbers is bent.",
    "gain_by_category": "The same of each category, whose items stand at the same numbers: what "
    "digits and tokens do is in all of them.",
    "read_by_category": "The share of the variance of the number that is read in values not seen, "
    "of each category.",
    "on_an_arch": "The same on an arch that goes three quarters round, less far of five or six "
    "values.",
    "on_a_circle": "The same on a circle: more than on a line or an arch, if the values close one.",
    "closes": "By how much a circle fits better than a line and than an arch: above 0, if the "
    "values close one.",
    "closes_by_category": "The same of each category.",
    "closes_by_item": "The same of each item.",
    "loop": "How long a loop of the values lives as they are connected at growing distances, over "
    "the largest distance: 0.37 for a perfect circle of six, 0.81 of sixty, and a few hundredths "
    "for noise.",
    "wrap": "How much nearer the last value is to the first than the farthest: 0 on a line, nearly "
    "1 on a circle. Noise has some too.",
    "turn": "How evenly angles grow in the plane of largest variance: 1 for a circle, but high for "
    "a bent line as well.",
    "accuracy": "Balanced accuracy, of items and frames that were not trained on.",
    "accuracy_since_first": "The same from the change of a layer since the first one: what the "
    "layers between have written.",
    "task": "Balanced accuracy with the true label, of items that were trained on, in other "
    "frames.",
    "control_task": "The same with labels dealt out at random: what the probe has memorised.",
    "selectivity": "How much better the true label is read than random ones.",
    "auc_shared": "Area under the ROC curve of each category by one probe for all.",
    "auc_dedicated": "The same by a probe for each. Both are lines in one space, so that they "
    "differ little whatever there is.",
    "retention": "The skill of the shared probe over that of the dedicated ones: nearly an "
    "identity.",
    "umap": "Neighbours in the plane are neighbours in all units, as far as the trustworthiness "
    "says; how far groups are apart means nothing. Choose a layer above.",
    "pca": "The two directions of largest variance. Choose a layer above.",
    "silhouette": "How much nearer items are to their own category than to the next, by cosine in "
    "all units: 1 for points, 0 for none.",
    "purity": "The share of the nearest items in all units that are of the same category.",
    "trustworthiness": "How few of the neighbours in the plane of UMAP are none in all units: 1 if "
    "all are.",
    "trustworthiness_pca": "The same of the plane of principal components.",
    "stability": "The correlation of distances between the planes of two seeds.",
    "separability": "The share of the variance of patterns that lies between categories.",
    "reached": "The share of the stimuli that have a token there, by its distance from the last "
    "one of the target.",
    "linear": "Balanced accuracy of the linear probe in items that it has not seen. Near 1 there "
    "is nothing left to gain.",
    "mlp": "The same of the nonlinear probe, tuned alike.",
    "control": "What the nonlinear probe gains for a planted product of two directions: where it "
    "gains nothing, that it gains nothing else says nothing.",
    "between": "Dimensions of the means of categories, without those of noise: cross-validated "
    "over halves of the items.",
    "shared": "The share of the variance of the means in one half of the items that is there in "
    "the other; near 0, dimensions between categories are those of noise.",
    "within": "Dimensions of the items of a category, cross-validated over halves of the frames.",
    "spread": "Over how many units the direction of a category spreads, relative to a random "
    "direction: 1 if units are no better a basis than any other.",
    "spread_scaled": "The same, in units of each unit's spread over items.",
    "units": "The participation ratio of the direction: how many units carry it.",
    "agreement": "The correlation of the directions of two parts of the items.",
    "auc_left": "What a probe trained anew reads of the label some blocks later (area under the "
    "ROC curve): intact, after what is claimed to carry it was taken away, and after what is "
    "random was.",
    "auc_later": "What a probe trained anew reads of the label after it was taken away, by how "
    "many blocks later.",
    "harm": "How far predictions after unrelated sentences are from the intact ones, in nats, on "
    "average over targets of a kind.",
    "harm_surprisal": "By how much these sentences themselves are harder to predict, in nats a "
    "token.",
    "words_lost": "By how much less likely than others the other words of the category become "
    "after the text, in nats, on average over targets of a kind.",
    "share_of": "How much of the way from one answer to the other it goes to set in what the other "
    "text has there: 0 for none, 1 for all.",
    "share_of_item": "The same of each item alone, at the first site and place; empty where its "
    "two texts are less than a logit apart.",
    "accuracy_left": "The share of questions that are still answered right without the neurons "
    "that are chosen (own), without all, and on average without those at random; half is luck.",
    "relative_drop": "The answers that are lost, over those that were right: the figure that is "
    "published. It cannot reach 1, since luck is right, too.",
    "above_chance_drop": "The same over what was right beyond luck: 1 if nothing is left.",
    "accuracy_by": "The same without the neurons that are chosen each way: by mean activation, by "
    "its mean size, by that times the length of what the neuron writes to the stream, and by d' "
    "between categories; and the own way, if it is another.",
    "drop_apart_of": "By how much more accuracy drops in the domain than in the others, without "
    "the neurons that are chosen in the domain (own), without all, and on average without those at "
    "random.",
    "drop_elsewhere_of": "The drop of accuracy in the other domains.",
    "drop_by_category": "The drop of accuracy in each domain, without the own.",
    "alike_of": "How alike the map of the variant is with that of its base (own), with the same "
    "after its stretches of the text were dealt out anew in each layer (shuffled), with that of "
    "pairs of another category (other); and how alike the map of the base is with that of the base "
    "with noise as long as the tuning in each tensor (shown).",
    "map": "How much of the way from one answer to the other a patch of each site goes, by layer "
    "and by stretch of the text, by attribution: the base model, its variant, the base with "
    "noise as long as the tuning in each tensor, and, if it was asked for, both models in the "
    "conversation of the variant's chat template. One scale for all.",
    "alike_in_template": "How alike the map of the base that reads plain texts is with its own in "
    "the conversation, and with that of the variant there, which is how such maps are published; "
    "and how alike both are in it. Where the last is high and the others are low, the template did "
    "it, and no tuning.",
    "agrees": "Spearman's correlation of estimates with true patches at the target and the last "
    "token, over layers of some pairs.",
    "answered": "The share of questions whose right option is likelier than every other, with its "
    "interval at 95 % over items (Wilson 1927).",
    "answered_of": "The same where right answers are dealt out anew among the options (shuffled), "
    "where the options stand after the question about another item (other), and where each "
    "question is asked after it was answered (known).",
    "ahead_of": "By how much the right option is likelier than the next, in nats; below 0 another "
    "one is likelier.",
    "answered_by_category": "The same of each category.",
    "right": "The share of questions whose reply names the right option, with its interval at 95 % "
    "over items (Wilson 1927).",
    "unread": "The share of replies that name no option. They count as wrong.",
    "near": "ROUGE-1 of what is said and the answer, with its interval at 95 % by bootstrap over "
    "items.",
    "right_of": "The share of right replies where right answers are dealt out anew (shuffled), of "
    "replies to the question about another item (other), and where each question is asked after it "
    "was answered (known).",
    "near_of": "ROUGE-1 of the same.",
    "tags_of": "The share of replies with thoughts between tags; held against what is said where "
    "the words that say how to answer are in another order (shuffled), and to the same question "
    "without them (other).",
    "valid_of": "The share of replies with one answer in the given format.",
    "stopped_of": "The share of replies that end with the answer.",
    "example": "Of each category the first question by name, and the whole reply, right or wrong.",
    "right_by_category": "The share of right replies of each category.",
    "standing": "What each subject has of the score, with its interval at 95 % by bootstrap over "
    "items.",
    "standing_macro": "The mean over categories of the same.",
    "standing_by_category": "The same of each category.",
    "lead": "By how much the subject of a row is ahead of that of a column, item by item.",
    "lead_p": "How often that is reached if the signs of items are changed at random.",
    "lead_mcnemar": "McNemar's exact p of the items that one of them answers and the other not.",
    "normalised": "What the subject of a row has over what that of a column has: above 1, a model "
    "made of several is better than the specialist that stands in the column.",
    "attributed": "The same, estimated for all patches at once from the gradient.",
    "said": "How the model goes on after '{begun}', by the likeliest token, while the direction of "
    "a category is added behind block {layer}. Without, it says '{unsteered}'. Nothing is measured "
    "of these.",
    "slope_by_category": "The slope of the words of each category.",
    "with_dimension": "Spearman's correlation, over categories, of how steeply they can be steered "
    "with over how many dimensions their items lie, in items that did not find the direction. "
    "Between broken lines its interval at 95 %: with few categories it is wide.",
    "against_dimension": "Spearman's correlation, over categories, of how steeply they can be "
    "steered with over how few dimensions their items lie, in items that did not find the "
    "direction.",
    "against_dimension_found": "The same in items that did: noise of theirs is in both.",
    "slope_of": "The slope, on average over targets of a kind.",
    "open_share": "The share of the gates of MLPs that are open: what enters their activation "
    "function is above 0. Bands hold 95 % over items. Untrained networks have a half.",
    "loud_share": "The share of neurons whose activation is above the given share of the root mean "
    "square of their token: with SiLU none is ever quite 0.",
    "moved_of": "The share of gates that are open in the base model or in what stands beside it "
    "alone: of the variant; of its neurons dealt out anew and of the base at another token, which "
    "is what models differ in that have nothing in common, and what tokens do; and of noise that "
    "is as long as the tuning in each tensor. What noise moves as much is no mark of a tuning.",
    "edited_of": "Levenshtein's distance of the same patterns over their length, of a sample of "
    "tokens. It lets neurons move up by a place, which means nothing, and is low for patterns that "
    "have nothing in common: compare the variant with its neurons dealt out anew.",
    "kappa_of": "How far patterns agree beyond independent ones with as many open gates (kappa): 1 "
    "for the same, 0 by luck.",
    "kappa_by_neuron_of": "The same beyond independent gates each of which is as often open as it "
    "is: that some are mostly open and others mostly shut does not count as agreement.",
    "jaccard_of": "Of gates that are open in either, the share that is open in both.",
    "phi_of": "The correlation of a gate in both models over tokens, on average over gates.",
    "distance_by": "The distance of the variant from its base, of the patterns of each token, of "
    "the neurons whose gate gives more than 0 on average over all tokens, and of those that are "
    "open at more than half of them; by the share that differs (Hamming), and by Levenshtein's.",
    "kept_of": "How much of the prediction is kept with what the other model has at the word "
    "(own); with a map of items dealt out anew (shuffled), with the same map given another word "
    "(equal), and with a map from an untrained twin of the other (other).",
    "found_again": "The share of features of a dictionary of half of the texts that one of the "
    "other half has, too.",
    "found_again_turned": "The same after one has been turned round at random: what cosines of so "
    "many directions reach by luck.",
    "cost": "How far the prediction of the next token moves with what the other model has at the "
    "word, nats.",
    "cost_without": "The same with the mean of other words in the same frame.",
    "donor_layer": "The layer of the other model that the map is from.",
    "rise": "By how much the words of a category become likelier than others, in nats.",
    "contrast_of": "By how much larger, in logarithms, slopes of weights are for the category than "
    "for the rest, with what surprisal and number of tokens explain taken out.",
    "weights": "Slopes of the weights of a part by layer, over those of all layers. Depth has such "
    "a profile in untrained networks, too.",
    "tokens": "The share of the absolute attributions that each token before the target has, by "
    "its distance.",
    "fresh_weights": "Spearman's correlation of the map of layers and parts with that of the same "
    "model whose blocks from this one on have fresh weights, within stimuli. A map that says "
    "something of what was learnt falls towards 0 to the left.",
    "fresh_tokens": "The same of attributions to tokens.",
    "signed_modularity": "Modularity of all correlations with their signs, none left out: how much "
    "more lies within modules that other items have shown than by chance, negative ones counted "
    "against it.",
    "nearer": "How often the network of a category is more like its own of other items than like "
    "that of another category; a half by luck.",
    "identified": "The share of categories whose network is most like their own of other items.",
    "networks_apart": "One less the correlation of the networks of two categories over other items "
    "at layer {layer}; categories that are close stand side by side. Darker is farther.",
    "agreement_of_halves": "How far the modules of two halves of the items agree (adjusted Rand "
    "index): 0 for modules of noise.",
    "largest_modularity": "The modularity of the modules that fit best, on average over densities: "
    "noise has some, too. Bands hold 95 % of the graphs of a reference. Where rotations of the "
    "units are as modular, what there is belongs to the layer's spectrum and not to its units.",
    "clustering_coefficient": "How many of a unit's neighbours are neighbours.",
    "efficiency": "The inverse of the harmonic mean of the lengths of the shortest paths.",
    "over_reference": "The small-world ratio with each reference: 1 for no more clustering at "
    "paths as short.",
    "excess": "By how much the largest modularity is above that of rotations, by the share of "
    "pairs that are connected.",
    "mean_correlation": "The mean size of the correlation of two units. Graphs of equal density "
    "contain weaker ones where it is low.",
    "participation_coefficient": "How evenly the connections of a unit go to all modules, on "
    "average: 0 where all stay in one.",
    "omega": "Where graphs stand between a ring of neighbours (-1) and graphs at random (1): small "
    "worlds are near 0.",
    "propensity": "Small-world propensity: 1 if as clustered as a ring and with paths as short as "
    "at random, 0.29 for one of the two.",
    "hubs": "The share of nodes that are hubs of their module: tied to it alone (provincial), to "
    "several (connector), or to all alike (kinless).",
    "cka_map": "CKA of every layer of one model with every layer of the other, over all items.",
    "rsa_map": "The rank correlation of the distances of items in both layers.",
    "neighbours_map": "The share of an item's neighbours that both layers agree on, beyond chance.",
    "path": "The layer of the other model that matches, if depth grows with depth: the path "
    "through the map on which layers are most alike.",
    "by_training": "CKA with the most alike layer, where neither model is untrained, the first, "
    "the second, or both: what networks share that have learned nothing comes from the words.",
    "own_accuracy": "What the probe reads in its own model.",
    "mapped": "How much of the variance of this model's patterns a map from the other gives, in "
    "items that did not fit it.",
    "apart": "One less the CKA of layers with the most alike layer of the other model, on average. "
    "Models that are close stand side by side. Darker is more.",
    "places": "A map of all models: what is close in it is alike.",
    "explained": "The share of the variance of the site, over stimuli, that the dictionary "
    "rebuilds.",
    "active": "How many features a stimulus has, on average.",
    "alive": "The share of features that any stimulus has.",
    "recovered": "How much of the surprisal that the model loses with the mean in the place of the "
    "site it keeps with what the dictionary rebuilds.",
    "read_each": "How many different tokens the dictionary was trained on, for each of its "
    "features. Below a hundred its features are those of these texts.",
    "matched_dealt": "The same with the items of the other model dealt out anew.",
    "closest": "The correlation above which a twentieth of the pairs are.",
    "needed_units": "The fewest units that have the share of the squared difference between a "
    "category and the rest.",
    "needed_features": "The same of features.",
    "factor": "How many times fewer features than units are needed.",
    "dealt_factor": "The same, at the median, for labels dealt out anew among the items: what any "
    "grouping of these words gives.",
    "normed_factor": "The same, as a share of the units and of the features that are ever active.",
    "circle": "The same nodes on a circle, module by module in colours; a line for each pair that "
    "goes together most, a tenth of all at most.",
    "matrix": "Every two nodes{where}, by {modules} that runs agree on, the largest first.",
    "additivity_of": "How much of what the network makes of a vector added at once it makes of its "
    "parts added one after the other, on average over targets of a kind.",
    "additivity_of_size": "The same of the own, by how much is added behind each block.",
    "additivity_at": "The same in the stream behind every later block: where adding up ends.",
    "ratio": "How far the stream moved along the direction that was added in parts, over how far "
    "it did at once. Near 1 whatever the network does: each block hands on what was added.",
    "ratio_of": "The same on average over targets of a kind.",
    "ratio_at": "The same behind every later block.",
    "whole_of": "How far predictions are from the intact ones, in nats, when the stream is scaled "
    "(own), and when a vector as long as what that adds is added.",
    "direct": "The slope that the vector has at the end of the stream, where no block sees it.",
    "moved_whole": "How far predictions are from the intact ones, in nats, when all of the stream "
    "is scaled.",
    "moved_component": "The same when only the component along the direction is.",
    "moved": "How far predictions are from the intact ones, in nats, by how much is added.",
    "lens_contrast": "What each lens sees of a domain in each layer: separation of its groups and "
    "its rise beside groups dealt out anew; gradients, losses without the block and patches beside "
    "the rest. Rings: layers beyond what the largest of all layers reaches by chance; there may be "
    "none.",
    "lens_profile": "The same of each domain alone, as it was published. Rings: what the published "
    "rule takes (the upper quarter, or the steepest rise), which always takes something. The 95 "
    "% interval over items of each is told where one points.",
    "part_contrast": "Gradients of the weights of attention and of MLPs alone, each beside the "
    "rest: of which module the saliency above is. Rings as above.",
    "agreed_null": "How many of four lenses (rise, saliency, lesion, patching) take a layer, where "
    "each may take none.",
    "agreed_paper": "The same by the published rule: of noise, too, two lenses take the same layer "
    "in nearly every map.",
    "centre": "The centre of mass of the profile of each lens, with its 95 % interval over items. "
    "Dotted: the middle of the layers. What holds of the rest as well is no knowledge of a domain.",
    "lens_agreement": "Spearman's correlation over layers of what two lenses see beside the rest, "
    "on average, and how often profiles turned round by some layers agree as much.",
    "lens_apart": "Where lenses disagree: how far a layer's lowest rank among the layers is from "
    "its highest, over the four lenses, of all ranks. 0: the same place in all; 0.6: on average "
    "where four lenses know nothing of each other.",
    "lens_overlap": "Of the layers that one of two lenses takes, the share that both take.",
    "lens_decided": "The share of items whose two texts are a logit apart in their answers: of the "
    "others a patch has no way to go.",
    "gained_of": "By how much likelier the answers of the domain become in sentences that were not "
    "taught, in nats: where the own layers were tuned, and on average over sets of as many others.",
    "learnt_of": "The same in the sentences that were taught: what is learnt by heart counts, too.",
    "left_of": "What the answers of the domain still cost then, in nats. Where that is near 0 for "
    "all, sets of layers could not differ: give fewer steps, or a lower rate.",
    "lost_of": "By how much less likely the answers of the other domains become, in nats; below 0 "
    "they gain.",
    "lost_each": "What the other domains lose for each nat that the domain gains.",
    "gained_by": "What the domain gains in sentences that were not taught, by the layers that were "
    "tuned; the own stand first.",
    "lost_by": "What the other domains lose then.",
    "recalled_of": "Of how many more wrong options the right answer is told apart, as a share, of "
    "questions of the domain that were taught, asked in other words: moved by the vector itself, "
    "by vectors that are as long in every weight (drawn, and permuted), by what was taught from "
    "answers dealt out anew, and from other domains. Where the vector is taken away: of how many "
    "fewer.",
    "transferred_of": "The same of questions of the domain that were kept back.",
    "elsewhere_of": "The same of questions of other domains.",
    "right_taught_of": "The share of questions of the domain whose right answer is the likeliest "
    "of its options, of those that were taught, in other words. A quarter is right by luck.",
    "right_kept_of": "The same of those that were kept back.",
    "surprisal_of": "By how many nats the surprisal of the right answer falls: what is learnt of "
    "how such questions are answered is in it, too.",
    "recalled_at": "Of how many more wrong options the right answer is told apart, by how much of "
    "the vector is added to the base; 1 is the tuned model.",
    "transferred_at": "The same of questions that were kept back.",
    "elsewhere_at": "The same of questions of other domains.",
    "harm_at": "By how much the surprisal of unrelated sentences rises, nats a token.",
    "change_by_category": "By how much likelier the answers of each domain become where the own "
    "layers were tuned, in nats.",
    "excess_of": "How much more of what tuning changed lies inside than of a change at random: of "
    "the change itself (own), of independent normal numbers (equal), of the same change with its "
    "rows and columns under each other's names (matched), and of what training on labels dealt out "
    "anew has changed (shuffled). Known is what lies inside wholly.",
    "aligned_of": "The cosine of the two tuning vectors (own), of one with normal numbers (equal), "
    "with the rows of the other dealt out (matched), and with what training on labels dealt out "
    "anew has changed (shuffled).",
    "profile": "How much more of the change of each matrix lies among what the base's matrix gives "
    "than of a change at random: 0 by chance, 1 if all of it does, below 0 if less than by chance.",
    "profile_right": "The same among what the base's matrix takes.",
    "profile_cosine": "The cosine of the weights before and after. It says how small a change is "
    "beside the weights (one of 2 % has 0.9998), and not how little it does.",
    "profile_aligned": "The cosine of the two tuning vectors, matrix by matrix.",
    "share": "The subspace of a matrix has all but a four-hundredth of its squares. Shares inside "
    "may be compared between components only by what is beyond chance: noise has a large share "
    "inside of a matrix with few rows and a small one inside of one with many. A relative size "
    "near the floor is that of rounding to bfloat16.",
    "modularity_of": "The modularity of the graphs of matrices (own), and of the same weights "
    "dealt out among all places (equal) or within rows (matched), on average over matrices.",
    "modularity_in": "The modularity of the graphs of matrices, by what they are.",
    "modularity_dealt": "What the same weights have in other places: few large ones among many "
    "small ones make modules wherever they lie.",
    "mean_size": "The mean size of a weight.",
    "charged": "The difference of each network with a charge and the one of the same seed without, "
    "by the strength of the charge: the mean with its 95 % interval over pairs, and each pair. "
    "Arms are drawn a little to the right of each other. "
    "Only claims are judged.",
    "charged_loss": "By how much more a word costs each network than the one without a charge, on "
    "texts that neither was trained on. Tinted: two percent, within which losses are called "
    "matched.",
    "erased": "What a probe still reads in other items after least-squares erasure of the label: "
    "0.5 if nothing.",
}
TITLES = {
    "contrast": "distance of categories over items",
    "modularity_of": "modularity of weights",
    "modularity_in": "modularity of weights by component",
    "modularity_dealt": "modularity of weights in other places",
    "mean_size": "mean size of a weight",
    "loss": "what a word costs, nats",
    "excess_of": "share inside beyond chance",
    "aligned_of": "cosine with the other tuning vector",
    "profile": "share inside beyond chance, of what matrices give",
    "profile_right": "share inside beyond chance, of what matrices take",
    "profile_cosine": "cosine of weights before and after",
    "profile_aligned": "cosine of two tuning vectors",
    "share": "what has changed, by component",
    "whole_cosine": "cosine before and after of all matrices as one",
    "whole_size": "relative size of the change of all",
    "whole_aligned": "cosine of both tuning vectors as one",
    "whole_aligned_z": "how far that is from chance, in spreads of rows that are dealt out",
    "nearer": "own network nearer than another",
    "identified": "categories told by their network",
    "networks_apart": "networks of categories",
    "ahead": "meaning ahead of spelling",
    "by_label": "together by the label",
    "by_rival": "together by the other grouping",
    "rather": "by the label rather",
    "meaning": "distances by meaning",
    "spelling": "distances by spelling",
    "auc": "area under the curve",
    "auc_shared": "area under the curve, shared probe",
    "auc_dedicated": "area under the curve, dedicated probes",
    "debiased": "CKA, debiased",
    "plain": "CKA, plain",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
    "moran": "Moran's I",
    "divergence": "divergence by what is left out",
    "surprisal": "surprisal by what is left out",
    "block_by_category": "block left out",
    "attention_by_category": "attention left out",
    "mlp_by_category": "MLP left out",
    "heads": "divergence, head left out",
    "selective_of": "selective loss",
    "dissociation": "t between categories",
    "dissociated_block": "p of a double dissociation by blocks",
    "dissociated_attention": "by attention",
    "dissociated_mlp": "by MLPs",
    "linear": "linear probe",
    "mlp": "nonlinear probe",
    "control": "gap for a planted product",
    "read": "number read",
    "own_change": "change of its own",
    "usual": "change of its own at nineteen of twenty other places",
    "exceeds": "other places with less change of its own",
    "common_change": "change common to its kind",
    "shared_change": "change shared with other things",
    "line": "predicted along a line",
    "spline": "predicted along a spline",
    "gain": "a spline's gain over a line",
    "auc_left": "area under the curve",
    "auc_later": "area under the curve, without the own",
    "harm": "harm to unrelated sentences",
    "harm_surprisal": "unrelated sentences harder to predict",
    "words_lost": "words of the category less likely",
    "share_of": "way to the other answer",
    "share_of_item": "way to the other answer of each item",
    "attributed": "estimated way to the other answer",
    "accuracy_left": "accuracy that is left",
    "relative_drop": "relative drop of accuracy",
    "above_chance_drop": "drop of accuracy above chance",
    "accuracy_by": "accuracy without neurons",
    "alike_of": "likeness of maps",
    "map": "maps of patches, side by side",
    "agrees": "agreement of attributions with patches",
    "ceiling": "likeness of maps of two halves in one model",
    "alike_in_template": "likeness of maps in a conversation",
    "decided_base": "logits between the answers in the base",
    "decided_in_template": "logits between the answers in the conversation",
    "decided_base_in_template": "logits between the answers in the conversation, in the base",
    "drop_apart_of": "drop of accuracy, the domain's above the others'",
    "drop_elsewhere_of": "drop of accuracy in other domains",
    "drop_by_category": "drop of accuracy",
    "drop": "drop of accuracy",
    "drop_margin": "drop of the margin, nats",
    "drop_relative": "drop of accuracy, over what was right",
    "drop_beyond_chance": "drop of accuracy, over what was right beyond luck",
    "answered": "questions answered right",
    "answered_of": "questions answered right",
    "ahead_of": "right option ahead of the next",
    "answered_by_category": "questions answered right",
    "right": "right replies",
    "unread": "replies that name no option",
    "near": "ROUGE-1",
    "right_of": "right replies",
    "near_of": "ROUGE-1",
    "tags_of": "replies with thoughts between tags",
    "valid_of": "replies with a valid answer",
    "stopped_of": "replies that end with the answer",
    "example": "what is said",
    "right_by_category": "right replies",
    "standing": "score of each subject",
    "standing_macro": "mean score over categories",
    "standing_by_category": "score by category",
    "lead": "lead over another subject",
    "lead_p": "p of a lead, signs changed at random",
    "lead_mcnemar": "p of a lead (McNemar)",
    "normalised": "normalised score",
    "on_the_path": "how much of what all senders do goes on the path",
    "attribution_agreement": "agreement of attributions with patches (Spearman)",
    "said": "what is said under each dose",
    "slope_of": "slope",
    "open_share": "share of open gates",
    "loud_share": "share of loud neurons",
    "moved_of": "gates that differ",
    "edited_of": "edit distance of patterns of gates",
    "kappa_of": "agreement of gates beyond chance",
    "kappa_by_neuron_of": "agreement of gates beyond chance, each gate by itself",
    "jaccard_of": "open gates in common",
    "phi_of": "correlation of a gate in both",
    "distance_by": "distance of patterns",
    "tokens_read": "tokens that were read",
    "change_of_weights": "length of the change over that of the weights",
    "kept_of": "prediction that is kept",
    "cost": "divergence with the other's",
    "cost_without": "divergence with the mean",
    "donor_layer": "layer of the other model",
    "against_dimension": "slope with few dimensions (Spearman)",
    "against_dimension_found": "slope with few dimensions, as published",
    "with_dimension": "slope with dimensions (Spearman)",
    "concepts": "number of categories",
    "rise": "rise of a category's words",
    "contrast_of": "contrast",
    "weights": "slopes of weights",
    "tokens": "attribution to tokens",
    "missed_share": "share of attributions that does not add up",
    "twin_weights": "correlation with untrained twins of slopes of weights (Spearman)",
    "twin_tokens": "of attributions to tokens",
    "fresh_weights": "slopes of weights where blocks have fresh weights",
    "fresh_tokens": "attributions to tokens where blocks have fresh weights",
    "agreement_of_halves": "agreement of modules",
    "signed_modularity": "modularity with signs",
    "over_reference": "small-world ratio",
    "excess": "modularity above that of rotations",
    "participation_coefficient": "participation coefficient",
    "propensity": "small-world propensity",
    "cka_map": "CKA",
    "rsa_map": "correlation of distances",
    "neighbours_map": "shared neighbours",
    "path": "matching layer of the other model",
    "by_training": "CKA",
    "own_accuracy": "balanced accuracy in its own model",
    "mapped": "variance that is mapped",
    "apart": "distance",
    "places": "map of models",
    "explained": "variance that is rebuilt",
    "active": "active features",
    "alive": "features that are ever active",
    "recovered": "surprisal recovered",
    "read_each": "tokens of training for each feature",
    "coupling": "coupling of activity and wiring (Spearman)",
    "coupling_dealt": "with heads dealt out within layers",
    "coupling_p": "how often that is as much",
    "found_again": "features found again in other texts",
    "found_again_turned": "the same, turned round at random",
    "units_each": "units of a parcel",
    "told_each": "variance of a parcel that is told",
    "needed_units": "units that are needed",
    "matched": "correlation of matched units",
    "matched_dealt": "correlation of matched units, items dealt out",
    "closest": "correlation of the closest units",
    "needed_features": "features that are needed",
    "factor": "localisation factor",
    "dealt_factor": "localisation factor, labels dealt out",
    "normed_factor": "localisation factor, by shares",
    "matrix": "how far nodes go together",
    "additivity_of": "additivity",
    "additivity_of_size": "additivity",
    "additivity_at": "additivity",
    "ratio": "ratio along the direction",
    "ratio_of": "ratio along the direction",
    "ratio_at": "ratio along the direction",
    "whole_of": "divergence, all scaled",
    "direct": "slope of the direct path",
    "moved_whole": "divergence, all scaled",
    "moved_component": "divergence, component scaled",
    "moved": "divergence by dose",
    "told": "pairs that are told right",
    "decided": "logits between the answers",
    "lens_contrast": "knowledge map: what is more than chance",
    "lens_profile": "profiles of the lenses, and the published rule",
    "part_contrast": "gradients by module",
    "lens_apart": "where lenses disagree",
    "agreed_null": "lenses that agree",
    "agreed_paper": "lenses that agree, published rule",
    "centre": "centre of mass in the depth",
    "lens_agreement": "agreement of lenses",
    "lens_overlap": "overlap of the layers that are taken",
    "lens_decided": "items that are decided",
    "gained_of": "gain in other sentences",
    "learnt_of": "gain in the sentences that were taught",
    "left_of": "what is left to be gained",
    "lost_of": "loss of other domains",
    "lost_each": "loss of other domains for each nat gained",
    "gained_by": "gain in other sentences by set",
    "recalled_of": "recalled by vector",
    "transferred_of": "transferred by vector",
    "elsewhere_of": "change of other domains by vector",
    "right_taught_of": "right of what was taught",
    "right_kept_of": "right of what was kept back",
    "surprisal_of": "fall of surprisal by vector",
    "recalled_at": "recalled by strength",
    "transferred_at": "transferred by strength",
    "elsewhere_at": "change of other domains by strength",
    "harm_at": "harm by strength",
    "lost_by": "loss of other domains by set",
    "change_by_category": "change of each domain",
    "umap": "UMAP",
    "pca": "principal components",
    "trustworthiness_pca": "trustworthiness, principal components",
}
WITHOUT = "_without_outliers"
# Analyses that lay others over each other: a study that has one opens with it.
LEADING = ("knowledge_map",)
# Variables that are drawn into the figure of another.
# What changed in a component, in the words of a table.
CHANGED = {
    "share_chance": "of it by chance, left",
    "share_noise": "of it in rounding to bfloat16, left",
    "share_excess": "beyond chance, left",
    "share_z": "the same in spreads of a change turned at random",
    "share_pooled": "share of all layers' squares, left",
    "energy_inside": "squares of the change inside, left",
    "energy_outside": "squares of the change outside, left",
    "share_right": "share inside, right",
    "share_right_chance": "of it by chance, right",
    "share_right_excess": "beyond chance, right",
    "size": "relative size of the change",
    "floor": "of rounding to bfloat16",
    "cosine": "cosine before and after",
    "zeros": "share of numbers that did not change",
    "effective_rank": "effective rank of the change",
    "directions": "directions of the change",
    "kept": "dimensions of the subspace",
    "spectral_inside": "largest singular value inside, left",
    "spectral_outside": "largest singular value outside, left",
}
WITHIN = {
    "critical", "p", "shuffled", "highest", "low", "high", "reachable", "chosen_null",
    "chosen_paper", "chosen_part", "lens_agreement_p", "lens_concordance", *CHANGED,
}  # fmt: skip
BOUNDS = ("_low", "_high")
# Rows of a map that are numbers, in words.
NAMED = {
    "contrast": str,
    "arm": str,
    "patch": str,
    "item": str,
    "harmed": str,
    "held": str,
    "head": lambda head: f"head {head}",
    "size": lambda size: f"{size:g} of the stream",
    "factor": lambda factor: f"times {factor:g}",
    "read": lambda layer: f"behind block {layer}",
    "later": lambda blocks: f"{words.counted(blocks, 'block')} later",
    "chosen": str,
    "untrained": lambda which: f"{which} untrained",
    "against": lambda kind: f"{kind} graphs",
    "strength": lambda size: f"{size:+g} times",
    "dose": lambda size: f"{size:+g} standard deviations",
    "offset": lambda away: (
        f"{words.counted(abs(away), 'token')} {'after' if away > 0 else 'before'}"
        if away
        else "last of the target"
    ),
    "penalty": lambda size: f"penalty {size:g}",
    "density": lambda share: f"{words.percent(share)} of pairs",
    "mask": lambda share: f"{words.percent(share)} of units",
    "distance": lambda apart: f"{apart} apart",
}

# What a map's rows are, where their dimension does not say it.
BY = {
    "arm": "what was done", "harmed": "what was done", "patch": "what was set in",
    "later": "blocks", "chosen": "how they are chosen", "read": "layer read",
    "against": "what it is held against", "held": "what is compared",
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """A figure, or a table of texts, with how to read it.

    Attributes
    ----------
    name, reading : str
    figure : plotly.graph_objects.Figure or None
    header : list of str
        Of the table's columns, but that of the rows' names.
    rows : list of (str, list of str)
        Name and cells of each.
    wide : bool
        Whether it takes the whole width of the page, as tables do.
    """

    name: str
    reading: str
    figure: go.Figure | None
    header: list[str] = field(default_factory=list)
    rows: list[tuple[str, list[str]]] = field(default_factory=list)
    wide: bool = False


@dataclass(frozen=True)
class Described:
    """What an analysis found in one subject, on all items, beside the hypotheses."""

    analysis: str
    kind: str
    subject: str
    line: str
    levels: str
    panels: list[Panel]

    @property
    def leads(self) -> bool:
        """Whether it is what the study is about, and stands before the hypotheses."""
        return self.kind in LEADING


@dataclass(frozen=True)
class Found:
    """What an analysis found in a subject and in its twins.

    Attributes
    ----------
    measures : xarray.Dataset
    twins : list of xarray.Dataset
    subjects : list of str
        More than one where an analysis takes several at once.
    first : str or None
        The measure by which a layer is chosen where only one can be shown.
    """

    measures: xr.Dataset
    twins: list[xr.Dataset]
    subjects: list[str]
    first: str | None

    def best(self, variable: str) -> int:
        """The layer at which a variable is greatest."""
        values = self.measures[variable]
        return int(values["layer"][int(values.fillna(-np.inf).argmax("layer"))])


def described(study: Study, summary: Mapping[str, Any], home: Path) -> list[Described]:
    """What each analysis gave of the trained subjects that it takes at once, beside their twins."""
    trained = [one for one in summary["recordings"] if one["seed"] is None]
    twins = {(one["model"], one["seed"]): one["subject"] for one in summary["recordings"]}
    seeds = sorted({seed for _, seed in twins if seed is not None})
    found, maps = [], dict[str, dict[str, xr.DataArray]]()
    for name, analysis in study.analyses.items():
        for group in groups(analysis, trained):
            names = [one["subject"] for one in group]
            measures = measures_of(home, name, names)
            if measures is None:
                continue
            of_twins = [
                measures_of(home, name, [twins[one["model"], seed] for one in group])
                for seed in seeds
            ]
            known = [one for one in of_twins if one is not None]
            found.append(_described(study, name, names, measures, known))
            if found[-1].leads:
                maps.setdefault(name, {})[words.listed(names)] = measures["agreed_null"]
    several = [
        _of_subjects(name, study, agreed) for name, agreed in maps.items() if len(agreed) > 1
    ]
    charged = _of_charges(study, trained, home)
    return [*several, *charged, *(one for one in found if one.panels or one.levels)]


def _of_charges(
    study: Study, trained: Sequence[Mapping[str, Any]], home: Path
) -> Iterator[Described]:
    """What charges change in the measures that claims about pairs are of, and in losses."""
    pairs = doses.charged(study)
    asked = dict.fromkeys(
        (one.measure, one.at.layer)
        for one in study.protocol.hypotheses
        if one.minus is not None and isinstance(one.at.layer, int)
    )
    for (measure, layer), (name, _, variable) in (
        (one, one[0].partition(".")) for one in (asked if pairs else ())
    ):
        (kind,) = study.protocol.analyses[name]
        known = {one["model"]: measures_of(home, name, [one["subject"]]) for one in trained}
        measures = {model: one for model, one in known.items() if one is not None}
        found = doses.arms(pairs, doses.valued(measures, variable, layer))
        if not found:
            continue
        title = f"{_title(variable)} at layer {layer}, less that without a charge"
        panels = [Panel(title, READING["charged"], doses.by_strength(found, name=_title(variable)))]
        losses = doses.in_percent(pairs, doses.valued(measures, "loss", None))
        levels = doses.in_words(found)
        if losses:
            figure = doses.by_strength(losses, name="percent more", band=100 * doses.MATCHED)
            panels.append(Panel("what a word costs more", READING["charged_loss"], figure))
            levels += f". What a word costs more, in percent: {doses.in_words(losses)}"
        line = f"What charges change in {measure}, in networks that differ by nothing else."
        yield Described(name, kind, "pairs of networks", line, levels, panels)


def found_of(study: Study, summary: Mapping[str, Any], home: Path) -> list[Measured]:
    """What each analysis found in the trained subjects, alone or together."""
    trained = [one for one in summary["recordings"] if one["seed"] is None]
    found = []
    for name, analysis in study.analyses.items():
        (kind,) = study.protocol.analyses[name]
        for group in groups(analysis, trained):
            names = [one["subject"] for one in group]
            measures = measures_of(home, name, names)
            if measures is not None:
                found.append(Measured(name, kind, names, measures))
    return found


def _of_subjects(name: str, study: Study, agreed: Mapping[str, xr.DataArray]) -> Described:
    """The maps of all subjects along the same depth."""
    (kind,) = study.protocol.analyses[name]
    shown = {subject: one.dropna("category", how="all") for subject, one in agreed.items()}
    panel = Panel(
        _title("agreed_null"), READING["agreed_null"], subject_maps(shown, most=len(LAID))
    )
    line = "Where lenses agree, in all subjects along the same depth."
    return Described(name, kind, words.listed(list(agreed)), line, "", [panel])


def measures_of(home: Path, name: str, subjects: list[str]) -> xr.Dataset | None:
    """What an analysis gave of a subject, or of several at once; None if it did not act on them."""
    path = home / "measures" / f"{'--'.join((name, *subjects))}.nc"
    if not path.is_file():
        return None
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        return opened.load()


def _described(
    study: Study,
    name: str,
    subjects: list[str],
    measures: xr.Dataset,
    twins: list[xr.Dataset],
) -> Described:
    analysis = study.analyses[name]
    (kind,) = study.protocol.analyses[name]
    found = Found(measures, twins, subjects, next(iter(analysis.measures), None))
    levels = []
    for measure in analysis.measures:
        values = measures[measure]
        chance = f"chance {float(values.attrs['chance']):.3g}"
        if values.isnull().all():  # too few categories for a correlation, for one
            levels.append(f"{words.plain(measure)} cannot be told")
            continue
        if values.size == 1:
            levels.append(f"{words.plain(measure)} {words.number(float(values[0]))} ({chance})")
            continue
        levels.append(
            f"{words.plain(measure)} {words.number(float(values.min()))} to "
            f"{words.number(float(values.max()))} over layers (greatest at layer "
            f"{found.best(measure)}; {chance})"
        )
    levels += [
        f"{_title(variable)} {words.number(float(measures[variable]))}{_of_twins(found, variable)}"
        for variable in map(str, measures.data_vars)
        if not measures[variable].dims
    ]
    return Described(
        name,
        kind,
        words.listed(subjects),
        summary_line(analysis),
        words.capital("; ".join(levels)),
        panels(found, analysis),
    )


def panels(found: Found, analysis: Analysis) -> list[Panel]:
    """A figure of each variable, but those that a hypothesis or another figure shows."""
    made = []
    for variable in map(str, found.measures.data_vars):
        dims = frozenset(map(str, found.measures[variable].dims))
        drawn = variable.endswith(WITHOUT) and dims == {"layer"}
        if drawn or variable in {*analysis.measures, *WITHIN} or variable.endswith(BOUNDS):
            continue
        if variable in TABLES:
            made.append(TABLES[variable](found, variable))
            continue
        panel = PANELS.get(dims)
        if panel is not None:
            made.append(panel(found, variable))
        if dims in BESIDE:
            made.append(BESIDE[dims](found, variable))
    return made


def _of_twins(found: Found, variable: str) -> str:
    """A number of the untrained twins, to stand behind that of the subject."""
    told = [twin for twin in found.twins if variable in twin]
    numbers = [words.number(float(twin[variable])) for twin in told]
    return f" (untrained twins {words.listed(numbers)})" if numbers else ""


def _title(variable: str) -> str:
    return TITLES.get(variable, words.plain(variable.removesuffix("_by_category")))


def _curve(found: Found, variable: str) -> Panel:
    """A value of each layer."""
    values = found.measures[variable]
    without = found.measures.get(variable + WITHOUT)
    beside = {} if without is None else {"without outliers": without}
    if variable + BOUNDS[0] in found.measures:
        beside = {bound.strip("_"): found.measures[variable + bound] for bound in BOUNDS}
    figure = curve(
        values,
        beside=beside,
        twins=[twin[variable] for twin in found.twins if variable in twin],
    )
    return Panel(_title(variable), READING.get(variable, ""), figure)


def _by_category(found: Found, variable: str) -> Panel:
    reading = READING.get(variable, "")
    reading += " The category with the highest mean over layers stands on top."
    title, values = _title(variable), found.measures[variable].dropna("category", how="all")
    figure = by_category(values, name=title)
    return Panel(f"{title} by category{_and_layer(values)}", reading.lstrip(), figure)


def _by_row(found: Found, variable: str) -> Panel:
    """Of rows that stand for numbers, the smallest on top."""
    values = found.measures[variable]
    (dim,) = set(map(str, values.dims)) - {"layer"}
    rows = values.assign_coords({dim: [NAMED[dim](one) for one in values[dim].to_numpy()]})
    title = _title(variable)
    rows = rows.transpose(dim, "layer").dropna(dim, how="all")
    figure = by_row(rows[::-1], name=title)
    title = title.removesuffix(f" by {dim}")
    by = BY.get(dim, dim)
    name = f"{title} by {by}{_and_layer(values)}"
    return Panel(name, READING.get(variable, ""), figure)


def _and_layer(values: xr.DataArray) -> str:
    """Of a figure's name, where it has more than one layer."""
    return " and layer" if values.sizes["layer"] > 1 else ""


def _units(found: Found, variable: str) -> Panel:
    """The t of the units of one layer."""
    best = found.best("significant")
    figure = ranked(
        found.measures[variable].sel(layer=best),
        critical=float(found.measures["critical"].sel(layer=best)),
        twins=[twin[variable].sel(layer=best) for twin in found.twins],
    )
    return Panel("units by t", READING[variable].format(layer=best), figure)


def _removed(found: Found, variable: str) -> Panel:
    """What is left of a value in one layer when more and more has been removed."""
    best = int(found.measures["layer"][int(found.measures[variable][:, 0].argmax("layer"))])
    at = found.measures.sel(layer=best)
    figure = curve(
        at[variable],
        beside={"shuffled labels": at["shuffled"]},
        twins=[twin[variable].sel(layer=best) for twin in found.twins],
    )
    return Panel(f"{_title(variable)} by removal", READING[variable].format(layer=best), figure)


def _places(found: Found, variable: str) -> Panel:
    """What happens between neighbouring values, in the layer where it is to be seen best."""
    chooses, limit, name = PLACES[variable]
    best = found.best(chooses)
    at = found.measures.sel(layer=best)
    figure = curve(
        at[variable],
        beside={name: at[limit].broadcast_like(at[variable])},
        twins=[twin[variable].sel(layer=best) for twin in found.twins],
    )
    return Panel(f"{_title(variable)} by value", READING[variable].format(layer=best), figure)


def _models(found: Found, variable: str) -> Panel:
    """Models along layers or depths, with their intervals and what could be reached."""
    measures = found.measures
    reachable = [
        measures[name]
        for name in ("reachable", "ceiling_low", "ceiling_high")
        if name in measures and bool(measures[name].notnull().any())
    ]
    figure = intervals(measures[variable], measures["low"], measures["high"], reachable)
    return Panel("similarity to models", READING[variable], figure)


def _parts(found: Found, variable: str) -> Panel:
    """Parts along layers, with their intervals."""
    measures = found.measures
    low, high = (measures[variable + bound] for bound in BOUNDS)
    reading = READING[variable]
    if found.twins:
        means = xr.concat([twin[variable].mean("layer") for twin in found.twins], "twin")
        of_parts = [
            f"{words.number(float(means.sel(part=part).mean()))} ({part})"
            for part in measures["part"].to_numpy()
        ]
        reading += f" Untrained twins, on average over layers: {words.listed(of_parts)}."
    return Panel(_title(variable), reading, intervals(measures[variable], low, high, []))


def _plane(found: Found, variable: str) -> Panel:
    figure = plane(found.measures[variable])
    return Panel(f"items by {TITLES[variable]}", READING[variable], figure)


def _layers(found: Found, variable: str) -> Panel:
    title = _title(variable.removesuffix(WITHOUT))
    reading = READING.get(variable, "")
    name = f"{title}, every two layers"
    if variable.endswith(WITHOUT):
        name, reading = f"{name}, without outliers", "Without the units of outlying spread."
    twins = [float(twin[variable].mean()) for twin in found.twins]
    if twins:
        reading += f" Untrained twins: {words.listed([words.number(one) for one in twins])} on "
        reading += "average over layers."
    figure = between_layers(found.measures[variable], name=title, subjects=found.subjects)
    return Panel(name, reading, figure)


def _categories(found: Found, variable: str) -> Panel:
    """Of the layer at which the analysis's first measure is greatest."""
    assert found.first is not None
    best = found.best(found.first)
    figure = apart(found.measures[variable].sel(layer=best), name="mean distance")
    title = TITLES.get(variable, "distance of categories")
    return Panel(title, READING[variable].format(layer=best), figure)


def _of_subjects_each(found: Found, variable: str) -> Panel:
    """A number of each subject, with its interval where it has one."""
    values = found.measures[variable]
    every = (values, *(found.measures.get(variable + bound, values) for bound in BOUNDS))
    one, low, high = (each.expand_dims(layer=[0]) for each in every)
    return Panel(_title(variable), READING[variable], intervals(one, low, high, []))


def _subjects_by_category(found: Found, variable: str) -> Panel:
    figure = table(found.measures[variable], name="score")
    return Panel(_title(variable), READING[variable], figure)


def _subjects(found: Found, variable: str) -> Panel:
    """How far all subjects are apart; of one alone there is nothing to see."""
    if variable != "apart":  # of each beside each, in which the order of both matters
        return Panel(
            _title(variable), READING[variable], table(found.measures[variable], name="row, column")
        )
    figure = apart(found.measures[variable], name=_title(variable))
    return Panel("distance of models", READING[variable], figure)


def _places_of_subjects(found: Found, variable: str) -> Panel:
    return Panel(_title(variable), READING[variable], plane(found.measures[variable]))


def _references(found: Found, variable: str) -> Panel:
    """The graph of a layer and those at random, with the range of these."""
    values, low, high = (found.measures[variable + one] for one in ("", *BOUNDS))
    return Panel(
        f"{_title(variable)}, beside graphs at random",
        READING[variable],
        intervals(values, low, high, []),
    )


def _of_models(found: Found, variable: str) -> Panel:
    """Models along layers, with their intervals."""
    values, low, high = (found.measures[variable + one] for one in ("", *BOUNDS))
    return Panel(_title(variable), READING[variable], intervals(values, low, high, []))


def _beside(found: Found, variable: str) -> Panel:
    """Maps of several models, layer by layer."""
    figure = side_by_side(found.measures[variable])
    return Panel(_title(variable), READING[variable], figure, wide=True)


def _agreement(found: Found, variable: str) -> Panel:
    """A number for each kind of site, of each model."""
    values = found.measures[variable]
    names = [
        f"{kind}, {side}"
        for side in values["side"].to_numpy()
        for kind in values["kind"].to_numpy()
    ]
    rows = xr.DataArray(values.to_numpy().ravel(), dims="row", coords={"row": names})
    return Panel(_title(variable), READING[variable], bars(rows[::-1], name=_title(variable)))


def _densities(found: Found, variable: str) -> Panel:
    """A line for each density."""
    values = found.measures[variable]
    shares = [NAMED["density"](one) for one in values["density"].to_numpy()]
    lines = values.assign_coords(density=shares)
    return Panel(_title(variable), READING[variable], intervals(lines, lines, lines, []))


def _lenses(found: Found, variable: str) -> Panel:
    """What each lens sees, with what the rule takes that goes with it."""
    values, signed = found.measures[variable], variable == "lens_contrast"
    values = values.dropna("lens", how="all")  # without gradients there is no saliency
    if signed:  # of the domain that others are held against there is none
        values = values.dropna("category", how="all")
    rule = "chosen_null" if signed else "chosen_paper"
    chosen = found.measures[rule].sel(category=values["category"])
    bounds = [] if signed else [found.measures[variable + bound] for bound in BOUNDS]
    figure = lens_maps(
        values, chosen, bounds, signed=signed,
        name="standard errors from nothing" if signed else "share of the largest",
    )  # fmt: skip
    return Panel(_title(variable), READING[variable], figure)


def _modules(found: Found, variable: str) -> Panel:
    """The same of one lens, module by module."""
    values = found.measures[variable].dropna("category", how="all")
    chosen = found.measures["chosen_part"].sel(category=values["category"])
    figure = lens_maps(
        values.rename(part="lens"), chosen.rename(part="lens"), signed=True,
        name="standard errors from nothing",
    )  # fmt: skip
    return Panel(_title(variable), READING[variable], figure)


def _centres(found: Found, variable: str) -> Panel:
    low, high = (found.measures[variable + bound] for bound in BOUNDS)
    return Panel(_title(variable), READING[variable], centres(found.measures[variable], low, high))


def _of_categories(found: Found, variable: str) -> Panel:
    """A number for each category, with its p where there is one."""
    values = found.measures[variable].dropna("category")
    names = [str(name) for name in values["category"].to_numpy()]
    if f"{variable}_p" in found.measures:
        told = found.measures[f"{variable}_p"].sel(category=values["category"]).to_numpy()
        names = [f"{name} (p {p:.3f})" for name, p in zip(names, told, strict=True)]
    figure = bars(values.assign_coords(category=names)[::-1], name=_title(variable))
    return Panel(_title(variable), READING[variable], figure)


def _matrix(found: Found, variable: str) -> Panel:
    values = found.measures[variable]
    modules = words.counted(values.attrs["modules"], "module")
    several = found.measures.sizes["layer"] > 1
    where = f" of layer {values.attrs['layer']}, where modularity is largest" if several else ""
    reading = READING[variable].format(where=where, modules=modules)
    return Panel(_title(variable), reading, matrix(values, name="correlation"))


def _circle(found: Found, variable: str) -> Panel:
    return Panel("strongest connections", READING["circle"], circle(found.measures[variable]))


def _texts(found: Found, variable: str) -> Panel:
    """What was said, of the layer at which the analysis's first measure is greatest."""
    assert found.first is not None
    best, values = found.best(found.first), found.measures[variable]
    said = values.sel(layer=best).transpose("category", "dose")
    at = values["layer"].to_numpy().tolist().index(best)
    begun, unsteered = (np.atleast_1d(values.attrs[name])[at] for name in ("begun", "unsteered"))
    return Panel(
        _title(variable),
        READING[variable].format(layer=best, begun=begun, unsteered=str(unsteered).strip()),
        None,
        [NAMED["dose"](one) for one in said["dose"].to_numpy()],
        [(str(name), [str(one) for one in row.to_numpy()])
         for name, row in zip(said["category"].to_numpy(), said, strict=True)],
    )  # fmt: skip


def _depths(found: Found, variable: str) -> Panel:
    """Components by layer, of what is told of all layers together."""
    values = found.measures[variable].isel(layer=0, drop=True).rename(depth="layer")
    return Panel(_title(variable), READING[variable], by_category(values, name=_title(variable)))


def _changed(found: Found, variable: str) -> Panel:
    """What has changed in each component: a table."""
    at = found.measures.isel(layer=0)
    names = [str(name) for name in at["category"].to_numpy()]
    rows = [
        (told, [_to_four_digits(float(one)) for one in at[name].to_numpy()])
        for name, told in {variable: "share inside, left", **CHANGED}.items()
    ]
    return Panel(_title(variable), READING[variable], None, names, rows)


def _examples(found: Found, variable: str) -> Panel:
    """What was said to the first question of each category, as it was said."""
    at = found.measures[variable].isel(layer=0)
    rows = [
        (str(name), [str(item), str(said).strip()])
        for name, item, said in zip(
            at["category"].to_numpy(), at["asked"].to_numpy(), at.to_numpy(), strict=True
        )
    ]
    return Panel(_title(variable), READING[variable], None, ["asked about", "reply"], rows)


def _to_four_digits(value: float) -> str:
    """A cosine of 0.9998 is another than one of 0.9975, and 0.0017 is not 0.002."""
    return f"{value:.4g}" if np.isfinite(value) else words.number(value)


# Of what happens between neighbouring values: what chooses the layer, a limit and its name.
PLACES = {
    "jump": ("read", "highest", "reached by luck"),
    "own_change": ("excess", "usual", "most others"),
}
PANELS: dict[frozenset[str], Callable[[Found, str], Panel]] = {
    frozenset({"layer"}): _curve,
    frozenset({"layer", "category"}): _by_category,
    frozenset({"layer", "category", "lens"}): _lenses,
    frozenset({"layer", "category", "part"}): _modules,
    frozenset({"layer", "category", "depth"}): _depths,
    frozenset({"category", "lens"}): _centres,
    frozenset({"category"}): _of_categories,
    frozenset({"layer", "mask"}): _by_row,
    frozenset({"layer", "distance"}): _by_row,
    frozenset({"layer", "contrast"}): _by_row,
    frozenset({"layer", "arm"}): _by_row,
    frozenset({"layer", "held"}): _by_row,
    frozenset({"layer", "patch"}): _by_row,
    frozenset({"layer", "chosen"}): _by_row,
    frozenset({"layer", "item"}): _by_row,
    frozenset({"layer", "harmed"}): _by_row,
    frozenset({"layer", "later"}): _by_row,
    frozenset({"layer", "dose"}): _by_row,
    frozenset({"layer", "head"}): _by_row,
    frozenset({"layer", "category", "dose"}): _texts,
    frozenset({"layer", "strength"}): _by_row,
    frozenset({"layer", "size"}): _by_row,
    frozenset({"layer", "factor"}): _by_row,
    frozenset({"layer", "read"}): _by_row,
    frozenset({"layer", "penalty"}): _by_row,
    frozenset({"layer", "offset"}): _by_row,
    frozenset({"offset"}): _curve,
    frozenset({"fresh"}): _curve,
    frozenset({"layer", "reference"}): _references,
    frozenset({"layer", "density"}): _densities,
    frozenset({"layer", "against"}): _by_row,
    frozenset({"layer", "untrained"}): _by_row,
    frozenset({"layer", "subject"}): _of_models,
    frozenset({"subject", "patch", "block"}): _beside,
    frozenset({"side", "kind"}): _agreement,
    frozenset({"subject", "other_subject"}): _subjects,
    frozenset({"subject"}): _of_subjects_each,
    frozenset({"subject", "category"}): _subjects_by_category,
    frozenset({"subject", "axis"}): _places_of_subjects,
    frozenset({"node", "other_node"}): _matrix,
    frozenset({"layer", "unit"}): _units,
    frozenset({"layer", "removed"}): _removed,
    frozenset({"layer", "item", "axis"}): _plane,
    frozenset({"layer", "place"}): _places,
    frozenset({"layer", "model"}): _models,
    frozenset({"layer", "part"}): _parts,
    frozenset({"depth", "model"}): _models,
    frozenset({"layer", "other_layer"}): _layers,
    frozenset({"layer", "category", "other_category"}): _categories,
}
# What is told in a way of its own.
TABLES: dict[str, Callable[[Found, str], Panel]] = {"share": _changed, "example": _examples}
# What is drawn of the same numbers once more.
BESIDE = {frozenset({"node", "other_node"}): _circle}
