"""A protocol to start from."""

import math
import re
from pathlib import Path

import yaml

from protocols.run import RunError, save_text
from protocols.schema import OWN_NAME

TEMPLATE = Path(__file__).with_name("template.yaml.txt")
SUBJECT = "smollm2-135m-instruct"


def begin(name: str, *, subject: str = SUBJECT) -> Path:
    """Write a protocol that explains itself.

    Parameters
    ----------
    name : str
        Of the study; with a folder before it, the protocol is written there.
    subject : str
        An embedded name, a folder or a hub id. A folder is named in full: protocols are moved.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RunError
        If the name cannot be that of a study, or the file is there.
    """
    path = Path(name).with_suffix("") if name.endswith((".yaml", ".yml")) else Path(name)
    study = path.name
    if not OWN_NAME.fullmatch(study):
        plain = re.sub(r"[^a-z0-9_-]+", "-", study.lower()).strip("-_0123456789") or "study"
        raise RunError(
            f"'{study}' cannot name a study: small letters, digits, - and _, a letter first. "
            f"Try `scan new {path.with_name(plain)}`."
        )
    path = path.with_name(f"{study}.yaml")
    if path.exists():
        raise RunError(f"{path} is there already and is left as it is; choose another name")
    if Path(subject).is_dir():
        subject = str(Path(subject).resolve())
    subjects = yaml.safe_dump([subject], default_flow_style=True, width=math.inf).strip()
    text = TEMPLATE.read_text(encoding="utf-8")
    save_text(text.format(study=study, subjects=subjects, file=path), path)
    return path
