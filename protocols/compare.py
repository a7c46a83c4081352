"""A protocol that compares models, for those who want to see before they claim."""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from protocols.run import RunError, save_text


def comparison(
    models: Sequence[str], results: Path, *, stimuli: str, frames: int, site: str, twins: int
) -> Path:
    """Write the protocol of a comparison.

    Parameters
    ----------
    models : sequence of str
    results : pathlib.Path
        The folder of results; protocols lie in ``protocols`` in it.
    stimuli : str
        A shipped set, or a table.
    frames : int
        How many of each item.
    site : str
    twins : int

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RunError
        If there are fewer than two models.
    """
    if len(set(models)) < 2:
        raise RunError("scan compare needs two models or more: `scan compare ONE OTHER`")
    name = "-".join(["compare", *(_plain(model) for model in models)])
    # Tables and folders are named from here, not from where the protocol lies.
    table = Path(stimuli)
    protocol = {
        "study": name,
        "title": f"Comparison of {', '.join(models)}",
        "subjects": [str(Path(one).resolve()) if Path(one).is_dir() else one for one in models],
        "stimuli": {"set": str(table.resolve()) if table.is_file() else stimuli, "frames": frames},
        "scan": {"sites": [site], "tokens": "target", "twins": twins},
        "compare": site,
    }
    path = results / "protocols" / f"{name}.yaml"
    save_text(yaml.safe_dump(protocol, sort_keys=False, allow_unicode=True), path)
    return path


def _plain(model: str) -> str:
    """The last part of a name, as a study may be called."""
    return re.sub(r"[^a-z0-9]+", "-", Path(model).name.lower()).strip("-")
