"""The way of a number back to the stimuli and the weights that it comes from."""

import json
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from protocols.verify import VerifyError, folders_of
from scanner import open_volume
from scanner.volume import provenance
from verification import Ledger

WEIGHTS = ("revision", "weights", "weights_sha256", "config_sha256", "tokenizer_sha256")
MADE = ("dtype", "device", "attention", "sharing", "time", "code_version")


def trace(home: Path, hypothesis: str) -> Tree:
    """How a verdict came about.

    Parameters
    ----------
    home : pathlib.Path
        The folder of a finished study.
    hypothesis : str
        Its id.

    Returns
    -------
    rich.tree.Tree
        From the verdict to its registration, its controls and its volumes, and from each volume to
        its weights and stimuli.

    Raises
    ------
    VerifyError
        If there is no such study or verdict, or its registration stands in no ledger.
    VolumeError
        If a volume is gone.
    """
    folders = folders_of(home)
    summary = json.loads(folders.verdicts.read_text())
    verdicts = {one["id"]: one for one in summary["verdicts"]}
    if hypothesis not in verdicts:
        raise VerifyError(f"{home} has no verdict on '{hypothesis}'; it has {', '.join(verdicts)}")
    verdict = verdicts[hypothesis]
    exploratory = " (exploratory: not a finding)" if verdict["exploratory"] else ""
    tree = Tree(f"{hypothesis}: {verdict['status']}{exploratory}")
    tree.add(escape(verdict["reason"]))
    _measured(tree.add(f"{verdict['measure']} at layer {verdict['layer']}"), verdict, summary)
    _registered(tree, Ledger(folders.ledger), verdict["registration"])
    checks = tree.add("controls")
    for check in verdict["checks"]:
        passed = {True: "passed", False: "failed", None: "not run"}[check["passed"]]
        checks.add(escape(f"{check['control']} {passed}: {check['reason']}"))
    for volume in verdict["volumes"]:
        _recorded(tree.add(f"volume {volume['path']}"), folders.root / volume["path"], volume)
    return tree


def _measured(node: Tree, verdict: dict[str, Any], summary: dict[str, Any]) -> None:
    for key in ("estimate", "interval", "reference", "smallest_effect", "p", "p_holm", "items"):
        node.add(escape(f"{key} {verdict[key]}"))
    node.add(f"judged by {summary['code_version']}")


def _registered(tree: Tree, ledger: Ledger, sha256: str) -> None:
    place = ledger.find("registration", sha256=sha256)
    if place is None:
        raise VerifyError(f"{ledger.path} holds no registration {sha256}")
    entry = ledger.entries[place]
    content = entry["content"]
    node = tree.add(f"registered {entry['time']}, line {place + 1} of {ledger.path}")
    node.add(f"registration sha256 {sha256}")
    if entry["supersedes"]:
        node.add(f"supersedes {entry['supersedes']}")
    node.add(escape(f"analysis {json.dumps(content['analysis'])}, seed {content['seed']}"))
    node.add(f"stimuli sha256 {content['stimuli_sha256']}")


def _recorded(node: Tree, path: Path, volume: dict[str, str]) -> None:
    attributes = provenance(open_volume(path))
    node.add(f"sha256 {volume['sha256']}")
    weights = node.add(f"subject {attributes['subject']}, twin seed {attributes['twin_seed']}")
    for key in WEIGHTS:
        weights.add(escape(f"{key} {attributes[key]}"))
    tokens = escape(str(attributes["tokens"]))
    node.add(f"stimuli sha256 {attributes['stimuli_sha256']}, tokens {tokens}")
    made = node.add("recorded")
    for key in MADE:
        made.add(escape(f"{key} {attributes[key]}"))
