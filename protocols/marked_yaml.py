"""YAML read safely, with the line of every value kept for error messages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# A protocol of ours has some hundred nodes. Anchors that name anchors reach billions.
MOST_NODES = 20_000

Place = tuple[str | int, ...]


class ProtocolError(ValueError):
    """A mistake in a protocol: file, line, key, and what was expected."""


@dataclass(frozen=True)
class MarkedYaml:
    """A YAML document and where its parts stand.

    Attributes
    ----------
    path : pathlib.Path
    data : dict
    lines : dict of tuple to int
        Line, from 1, of each key and element by its place, such as ``("scan", "sites", 0)``.
    """

    path: Path
    data: dict[str, Any]
    lines: dict[Place, int]

    def error(self, place: Place, message: str) -> ProtocolError:
        """An error at a place; one that is not in the file is reported at its nearest parent."""
        inside = place
        while inside and inside not in self.lines:
            inside = inside[:-1]
        key = ".".join(map(str, place))
        where = f"{self.path}, line {self.lines.get(inside, 1)}"
        return ProtocolError(f"{where}: {key}: {message}" if key else f"{where}: {message}")


def read(path: Path) -> MarkedYaml:
    """Read a YAML file whose top level is a mapping.

    Raises
    ------
    ProtocolError
        If the file cannot be read, is not YAML, repeats a key, or its aliases have no end.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ProtocolError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProtocolError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise ProtocolError(f"{path}, line 1: expected `key: value` lines")
        lines: dict[Place, int] = {}
        _walk(root, (), lines, path, open_nodes=())
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ProtocolError(f"{path}, line {line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ProtocolError(f"{path}: not YAML: {error}") from None
    except ValueError as error:
        if isinstance(error, ProtocolError):
            raise
        raise ProtocolError(f"{path}: not YAML: {error}") from None
    finally:
        loader.dispose()
    return MarkedYaml(path, data, lines)


def _walk(
    node: yaml.Node,
    place: Place,
    lines: dict[Place, int],
    path: Path,
    *,
    open_nodes: tuple[yaml.Node, ...],
) -> None:
    """Note the line of every node, expanding aliases as the loader will."""
    line = node.start_mark.line + 1
    if any(node is outer for outer in open_nodes):
        raise ProtocolError(f"{path}, line {line}: an anchor contains itself")
    if len(lines) > MOST_NODES:
        raise ProtocolError(f"{path}, line {line}: aliases expand to more than {MOST_NODES} values")
    lines.setdefault(place, line)
    inner = (*open_nodes, node)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            key_line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise ProtocolError(f"{path}, line {key_line}: keys are plain words")
            if key.value in seen:
                raise ProtocolError(f"{path}, line {key_line}: key '{key.value}' stands twice")
            seen.add(key.value)
            lines[(*place, key.value)] = key_line
            _walk(value, (*place, key.value), lines, path, open_nodes=inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*place, index)] = value.start_mark.line + 1
            _walk(value, (*place, index), lines, path, open_nodes=inner)
