"""What analyses cost, side by side in one run with the loop that is usual for them.

``make bench`` runs it and writes ``benchmarks/analyses.md``. Both sides of a race get the same
activations and must give the same answer before they are timed. What would take hours is timed on a
part, and says so.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import networkx as nx
import numpy as np
import rsatoolbox
from nilearn.mass_univariate import permuted_ols
from rsatoolbox.inference import evaluate
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from analyses import cka, contrast, graphs, rdm, rdm_bootstrap
from analyses.base import labels, read
from analyses.connectome import Connectome
from analyses.probe import Probe, decode, decode_logistic, decode_path, recalls
from analyses.rsa import Rsa
from analyses.splits import Fold, cross_grouped, permuted_within
from analyses.words import read_words
from benchmarks.scanner import machine, table
from scanner import Subject
from verification.worlds import SITE, world

PAGE = Path(__file__).parent / "analyses.md"
REPEATS = 3
PERMUTATIONS = 1000
BOOTSTRAPS = 2
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)


@dataclass(frozen=True)
class Race:
    """Ours and the usual way, each returning its answer.

    Attributes
    ----------
    what, against : str
    ours, usual : callable
    tolerance : float
        By which the answers may differ, times the largest of them where that is above 1.
    part : float
        How much more work ours does than what was timed of the usual way.
    compared : callable
        The part of our answer that the usual way gives too.
    scores : bool
        Whether answers are scores, of which ours may be higher: it is asked how far it falls short
        anywhere, and told by how much it is higher on average.
    """

    what: str
    against: str
    ours: Callable[[], np.ndarray]
    usual: Callable[[], np.ndarray]
    tolerance: float
    part: float = 1.0
    compared: Callable[[np.ndarray], np.ndarray] = field(default=lambda answer: answer)
    scores: bool = False

    def run(self) -> list[str]:
        """The row of the table.

        Raises
        ------
        AssertionError
            If the answers differ by more than the tolerance.
        """
        answer = self.usual()
        difference = self.compared(self.ours()) - answer
        apart = float(max(0, -difference.min()) if self.scores else np.abs(difference).max())
        said = f"{apart:.1e}"
        if self.scores:
            said = f"short by {said} at most, {difference.mean():+.1e} on average"
        allowed = self.tolerance * max(1.0, float(np.abs(answer).max()))
        assert apart <= allowed, f"{self.what}: answers differ by {apart:g}"
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(REPEATS):
            for call, seconds in zip((self.ours, self.usual), times, strict=True):
                start = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - start)
        ours, usual = (statistics.median(seconds) for seconds in times)
        scaled = "" if self.part == 1 else f" (1 part in {self.part:.3g} timed)"
        return [
            self.what, self.against, said, f"{ours:.3f} s",
            f"{usual * self.part:.3f} s{scaled}", f"{usual * self.part / ours:.1f} x",
        ]  # fmt: skip


def subject() -> Subject:
    """As large as the quickstart's: 160 items in 4 frames, 30 layers of 576 units."""
    return world(
        np.random.default_rng(0), code="direction", size=3.0, correlated=True, twins=0,
        categories=10, items=16, frames=4, layers=30, units=576,
    )  # fmt: skip


def probe_races(one: Subject) -> list[Race]:
    probe = Probe(SITE, item_folds=4, frame_folds=2)
    x, codes, _ = read(one, SITE, "category")
    folds = cross_grouped(
        labels(one, "item"), labels(one, "frame"), codes,
        item_folds=4, frame_folds=2, rng=np.random.default_rng(0),
    )  # fmt: skip
    targets = np.eye(codes.max() + 1)[codes]

    def ridge() -> np.ndarray:
        scores = np.empty((len(x), len(PENALTIES), *targets.shape))
        for layer, values in enumerate(x):
            for place, penalty in enumerate(PENALTIES):
                for train, test in folds:
                    scaler = StandardScaler().fit(values[train])
                    z = scaler.transform(values[train])
                    size = penalty * (z**2).sum() / len(train)
                    fitted = Ridge(alpha=size).fit(z, targets[train])
                    found = fitted.predict(scaler.transform(values[test]))
                    scores[layer, place, test] = found
        return scores

    def logistic(layers: int, strength: float) -> np.ndarray:
        """Balanced accuracy and AUC by layer, as `probe` gives them."""
        found = []
        for values in x[:layers]:
            decoded, areas = np.empty_like(codes), []
            for train, test in folds:
                scaler = StandardScaler().fit(values[train])
                fitted = LogisticRegression(C=strength, max_iter=1000).fit(
                    scaler.transform(values[train]), codes[train]
                )
                scores = fitted.predict_proba(scaler.transform(values[test]))
                decoded[test] = scores.argmax(1)
                areas.append(roc_auc_score(codes[test], scores, multi_class="ovr"))
            found.append((balanced_accuracy_score(codes, decoded), np.mean(areas)))
        return np.array(found)

    def best(scores: np.ndarray) -> float:
        return max(float(recalls(codes, some.argmax(1), 10).mean()) for some in scores)

    def logistic_path(layers: int) -> np.ndarray:
        """The best balanced accuracy of each layer over penalties that mean the same."""
        return np.array(
            [
                best(
                    np.array(
                        [
                            decode_logistic(values, codes, folds, penalty=one, rest=False)
                            for one in PENALTIES
                        ]
                    )
                )
                for values in x[:layers]
            ]
        )

    def decoded() -> np.ndarray:
        found = probe(one, rng=np.random.default_rng(0))
        return np.column_stack([found["balanced_accuracy"], found["auc"]])

    def permutations(draws: int) -> np.ndarray:
        return probe.permuted(
            one, "balanced_accuracy", draws=draws,
            rng=np.random.default_rng(0), shuffles=np.random.default_rng(1),
        ).to_numpy()  # fmt: skip

    def ours() -> np.ndarray:
        return np.array([decode_path(values, codes, folds, penalties=PENALTIES) for values in x])

    return [
        Race(
            "ridge probes, 30 layers x 8 folds x 5 penalties", "scikit-learn's Ridge, one by one",
            ours, ridge, 1e-8,
        ),
        Race(
            "the same: the best balanced accuracy of each layer",
            "scikit-learn's multinomial LogisticRegression, five penalties that mean the same",
            lambda: np.array([best(scores) for scores in ours()]), lambda: logistic_path(3),
            0.01, 10, lambda answer: answer[:3], scores=True,
        ),
        *(
            Race(
                "ridge probes with one penalty: balanced accuracy and AUC of each layer",
                f"scikit-learn's multinomial LogisticRegression, C = {strength:g}",
                # Ridge may decode more, and does on these Gaussians; it must not decode less.
                decoded, lambda strength=strength: logistic(6, strength), 0.01, 5,
                lambda answer: answer[:6], scores=True,
            )
            for strength in (0.1, 1.0)
        ),
        Race(
            "1,000 permutations of labels, 30 layers", "probing each: five of them",
            lambda: permutations(PERMUTATIONS), lambda: _each_permuted(x, codes, one, folds),
            1e-12, PERMUTATIONS / 5, lambda answer: answer[:5],
        ),
    ]  # fmt: skip


def _each_permuted(x: np.ndarray, codes: np.ndarray, one: Subject, folds: list[Fold]) -> np.ndarray:
    """The first five permutations, decoded one by one."""
    groups = np.empty(len(codes), dtype=int)
    for number, fold in enumerate(folds):
        groups[fold.test] = number // 2
    dealt = permuted_within(
        codes, labels(one, "item"), groups, draws=PERMUTATIONS, rng=np.random.default_rng(1)
    )
    return np.array(
        [
            [
                recalls(some, decode(values, some, folds, penalty=1.0).argmax(1), 10).mean()
                for values in x
            ]
            for some in dealt[:5]
        ]
    )


def price_of_permutations(one: Subject) -> str:
    """What a thousand dealings of labels cost, beside decoding once."""
    probe = Probe(SITE, item_folds=4, frame_folds=2)
    several = replace(probe, penalties=PENALTIES[1:])
    times: tuple[list[float], ...] = ([], [], [])
    for _ in range(REPEATS):
        begun = time.perf_counter()
        for call, seconds in zip(
            (
                lambda: probe(one, rng=np.random.default_rng(0)),
                lambda: several(one, rng=np.random.default_rng(0)),
                lambda: probe.permuted(
                    one, "balanced_accuracy", draws=PERMUTATIONS,
                    rng=np.random.default_rng(0), shuffles=np.random.default_rng(1),
                ),
            ),
            times, strict=True,
        ):  # fmt: skip
            call()
            ended = time.perf_counter()
            seconds.append(ended - begun)
            begun = ended
    once, path, dealt = (statistics.median(seconds) for seconds in times)
    return (
        f"Decoding once takes {once:.3f} s with one penalty and {path:.3f} s with five; 1,000 "
        f"permutations of labels take {dealt:.3f} s, {dealt / once:.1f} and {dealt / path:.1f} "
        "times as long."
    )


def contrast_races(one: Subject) -> list[Race]:
    words = read_words(one, SITE, "category")
    count, patterns = len(words.codes), words.patterns
    weight = contrast.weights(f"{words.names[0]} - {contrast.REST}", words.names)
    model = contrast.partition(weight, words.codes, np.empty((count, 0)))
    items = np.tile(np.arange(count), (PERMUTATIONS, 1))
    together = patterns.transpose(1, 0, 2).reshape(count, -1)

    def ours() -> np.ndarray:
        order = np.random.default_rng(1).permuted(items, axis=1)
        draws = contrast.permuted(model, order)
        return np.array([contrast.t_map(word, model, draws)[0] for word in patterns])

    def theirs(target: np.ndarray) -> np.ndarray:
        found = permuted_ols(
            model.tested[:, None], target, confounding_vars=model.known, n_perm=PERMUTATIONS,
            two_sided_test=True, random_state=0, n_jobs=1, output_type="dict",
        )  # fmt: skip
        return found["t"][0]

    return [
        Race(
            "a contrast in 17,280 units, 1,000 permutations", "nilearn's permuted_ols, at once",
            ours, lambda: theirs(together).reshape(len(patterns), -1), 1e-6,
        ),
        Race(
            "the same", "nilearn's permuted_ols, layer by layer",
            ours, lambda: np.array([theirs(word) for word in patterns]), 1e-6,
        ),
    ]  # fmt: skip


def rsa_races(one: Subject) -> list[Race]:
    analysis = Rsa(SITE, distance="correlation")
    x, codes, _ = read(one, SITE, "category")
    items, frames = labels(one, "item"), labels(one, "frame")
    first, which = np.unique(items, return_index=True, return_inverse=True)[1:]
    average = np.eye(len(first))[which].T / 4
    patterns = np.empty((len(x), len(first), x.shape[2]))
    for layer, values in enumerate(x):
        centred = values - np.array([values[frames == frame].mean(0) for frame in frames])
        patterns[layer] = average @ (centred / centred.std(0))
    model = rsatoolbox.rdm.get_categorical_rdm(codes[first].tolist())

    def ours() -> np.ndarray:
        rdms = np.array([rdm.correlation(values) for values in patterns])
        return rdm.compared(rdms, rdm.model_rdm(codes[first])[None], "spearman")[:, 0]

    def theirs() -> np.ndarray:
        found = []
        for values in patterns:
            layer = rsatoolbox.rdm.calc_rdm([rsatoolbox.data.Dataset(values)], method="correlation")
            found.append(rsatoolbox.rdm.compare(layer, model, method="spearman")[0, 0])
        return np.array(found)

    orders = np.random.default_rng(1).permuted(np.tile(np.arange(len(first)), (1000, 1)), axis=1)
    rdms = rsatoolbox.rdm.RDMs(np.array([rdm.correlation(values) for values in patterns]))

    def mantel() -> np.ndarray:
        models = rsatoolbox.rdm.RDMs(rdm.model_rdm(codes[first][orders[:5]]))
        return rsatoolbox.rdm.compare(rdms, models, method="spearman").T

    return [
        Race(
            "RDMs of 30 layers against a model",
            "rsatoolbox's calc_rdm and compare, layer by layer", ours, theirs, 1e-10,
        ),
        Race(
            "1,000 permutations of items (Mantel), 30 layers",
            "rsatoolbox's compare with five of the permuted models",
            lambda: analysis.permuted(
                one, "similarity", draws=PERMUTATIONS,
                rng=np.random.default_rng(0), shuffles=np.random.default_rng(1),
            ).to_numpy(),
            mantel, 1e-10, PERMUTATIONS / 5, lambda answer: answer[:5],
        ),
    ]  # fmt: skip


def bootstrap_races(items: int = 1200, subjects: int = 4, models: int = 3) -> list[Race]:
    """As large as the whole set of words: inference on models over items and subjects."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(items, 20))
    rdms = np.array(
        [rdm.squared_euclidean(truth + rng.normal(size=truth.shape)) for _ in range(subjects)]
    )
    known = np.array([rdm.squared_euclidean(rng.normal(size=truth.shape)) for _ in range(models)])
    drawn = [
        rng.integers(size, size=(PERMUTATIONS, size)) for size in (items, subjects)
    ]  # which, in each sample
    counts = [
        np.array([np.bincount(one, minlength=some.shape[1]) for one in some]) for some in drawn
    ]

    def ours() -> np.ndarray:
        of_samples, of_all = (
            rdm_bootstrap.likeness(rdms, known, "corr", items=one)
            for one in (counts[0], np.ones((1, items)))
        )
        found = [
            rdm_bootstrap.over_subjects(alike, who)
            for alike, who in (
                (of_samples, counts[1]), (of_all, counts[1]), (of_samples, np.ones_like(counts[1])),
            )
        ]  # fmt: skip
        return np.stack(
            [np.concatenate([one.similarity, one.ceiling], axis=1) for one in found], axis=-1
        )

    def theirs() -> np.ndarray:
        places = iter(range(PERMUTATIONS))

        def sampled(data: rsatoolbox.rdm.RDMs, **_: object) -> tuple[object, ...]:
            place = next(places)
            which, who = drawn[0][place], drawn[1][place]
            sample = data.subsample("index", who).subsample_pattern("index", which)
            return sample, who, which

        fixed = [rsatoolbox.model.ModelFixed(str(n), one) for n, one in enumerate(known)]
        original, evaluate.bootstrap_sample = evaluate.bootstrap_sample, sampled
        try:
            found = evaluate.eval_dual_bootstrap(
                fixed, rsatoolbox.rdm.RDMs(rdms), method="corr", N=BOOTSTRAPS
            )
        finally:
            evaluate.bootstrap_sample = original
        ceiling = np.moveaxis(found.noise_ceiling[:, :, 0], 0, 1)
        return np.concatenate([found.evaluations[:, :, 0, 0], ceiling], axis=1)

    return [
        Race(
            "1,000 samples of a dual bootstrap with ceilings, 1,200 items, 4 RDMs, 3 models",
            "rsatoolbox's eval_dual_bootstrap, two samples", ours, theirs, 1e-10,
            PERMUTATIONS / BOOTSTRAPS, lambda answer: answer[:BOOTSTRAPS],
        )
    ]  # fmt: skip


def cka_races(layers: int = 30, items: int = 500, units: int = 576) -> list[Race]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, layers, items, units))
    y += x

    def pairwise(hsic: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
        """As most scripts do it: a function of two layers, called for each pair."""
        found = np.empty((layers, layers))
        for i, one in enumerate(x):
            for j, other in enumerate(y):
                k, m = one @ one.T, other @ other.T
                found[i, j] = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
        return found

    def plain(k: np.ndarray, m: np.ndarray) -> float:
        centre = np.eye(items) - 1 / items
        return float(np.sum((centre @ k @ centre) * (centre @ m @ centre)))

    def debiased(k: np.ndarray, m: np.ndarray) -> float:
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        both = np.sum(k * m) + k.sum() * m.sum() / ((items - 1) * (items - 2))
        return float(both - 2 * (k.sum(0) @ m.sum(0)) / (items - 2))

    def ours(place: int) -> np.ndarray:
        return cka.compared(x, y, batch=10_000, rng=rng)[place]

    return [
        Race(f"both forms of CKA, {layers} x {layers} layers, {items} items",
             f"the {name} one, pair by pair", lambda place=place: ours(place),
             lambda hsic=hsic: pairwise(hsic), 1e-10)
        for place, name, hsic in ((0, "debiased", debiased), (1, "plain", plain))
    ]  # fmt: skip


def graph_races(nodes: int = 300, count: int = 40) -> list[Race]:
    """Graphs of noise, a tenth of all pairs connected."""
    series = np.random.default_rng(0).normal(size=(count, nodes, 100))
    drawn = graphs.strongest(np.array([np.corrcoef(one) for one in series]), 0.1)
    networks = [nx.from_numpy_array(one.astype(int)) for one in drawn]

    def louvain() -> np.ndarray:
        """By how much more edges lie within communities: on average, since each has its own."""
        modules = graphs.communities(drawn, np.random.default_rng(0))
        return graphs.modularity(drawn, modules).mean(keepdims=True)

    def theirs() -> np.ndarray:
        community = nx.community
        found = [
            community.modularity(one, community.louvain_communities(one, seed=seed))
            for seed, one in enumerate(networks)
        ]
        return np.mean(found, keepdims=True)

    def clubs() -> np.ndarray:
        found = [nx.rich_club_coefficient(one, normalized=False) for one in networks]
        return np.array([[one.get(degree, np.nan) for degree in range(20, 30)] for one in found])

    named = f"{count} graphs of {nodes} nodes"
    return [
        Race(f"communities of {named}", "networkx's louvain_communities", louvain, theirs, 0.005),
        Race(f"clustering of {named}", "networkx's average_clustering",
             lambda: graphs.clustering(drawn),
             lambda: np.array([nx.average_clustering(one) for one in networks]), 1e-6),
        Race(f"lengths of paths in {named}", "networkx's global_efficiency: four of them",
             lambda: graphs.efficiency(drawn),
             lambda: np.array([nx.global_efficiency(one) for one in networks[:4]]), 1e-10,
             count / 4, lambda answer: answer[:4]),
        Race(f"rich clubs of {named}", "networkx's rich_club_coefficient",
             lambda: graphs.rich_club(drawn), clubs, 1e-10, 1, lambda answer: answer[:, 20:30]),
    ]  # fmt: skip


def whole_curve() -> str:
    """One layer as a connectome of 300 nodes, with all that stands beside it."""
    one = world(np.random.default_rng(0), code="modules", twins=0, categories=10, items=24,
                frames=1, layers=1, units=576)  # fmt: skip
    analysis = Connectome(SITE, nodes=300, nulls=100, rewirings=100)
    start = time.perf_counter()
    analysis(one, rng=np.random.default_rng(0))
    return (
        f"A connectome of one layer, {analysis.nodes} nodes over 240 items, with all measures at "
        f"{len(analysis.densities)} densities, {analysis.nulls} graphs of each reference and "
        f"{analysis.rewirings} rewired ones for ratios: {time.perf_counter() - start:.0f} s, once."
    )


def main() -> None:
    """Run all races and write the page."""
    warnings.simplefilter("ignore")  # rsatoolbox's casts, and a regression that is cut off
    one = subject()
    rows = []
    races = [*probe_races(one), *contrast_races(one), *rsa_races(one), *bootstrap_races()]
    for race in [*races, *cka_races(), *graph_races()]:
        rows.append(race.run())
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    columns = ["what", "against", "answers differ by", "ours", "usual", "faster"]
    PAGE.write_text(
        "# What analyses cost\n\nWritten by `make bench`; see `benchmarks/analyses.py`.\n\n"
        f"Machine: {machine()}. 640 stimuli of 160 items, 30 layers of 576 units, unless said. "
        f"Medians of {REPEATS} interleaved runs.\n\n{table(columns, rows)}\n\n"
        f"{price_of_permutations(one)}\n\n{whole_curve()}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
