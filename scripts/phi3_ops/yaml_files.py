"""Read YAML files: the only YAML loader of this package.

Aliases let a file of a few hundred bytes unfold to millions of values, so their number is limited.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from .errors import OpsError

if TYPE_CHECKING:
    from pydantic import BaseModel

    Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 1 << 20  # size of a file; a longer one takes seconds to read
MAX_VALUES = (
    10_000  # values in a file after its aliases are unfolded, beyond those that it spells out
)
MAX_DEPTH = 100
MERGE_TAG = "tag:yaml.org,2002:merge"  # of the key `<<`


class RepeatedKeyError(yaml.YAMLError):
    """A mapping of a YAML file has a key twice; the loader would take the last value."""


class YamlLimitError(yaml.YAMLError):
    """A YAML file is larger than any that this package needs."""


def load_yaml(path: Path, *, unique_keys: bool = False) -> Any:
    """Return the content of a YAML file, made of plain types.

    Args:
        path: the file.
        unique_keys: whether to refuse a mapping that has a key twice.

    Raises:
        RepeatedKeyError: a mapping has a key twice.
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not UTF-8.
        yaml.YAMLError: it is not valid YAML, has values of other types, or exceeds a limit.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise YamlLimitError(f"it is longer than {MAX_BYTES >> 20} MiB")
    return parse_yaml(content.decode("utf-8-sig"), unique_keys=unique_keys)


def load_yaml_as(model: type[Model], file: Path, fix: str) -> Model:
    """Return the content of a YAML file as a pydantic model.

    Args:
        model: the class of the result.
        file: the file.
        fix: what to do if the file does not exist.

    Raises:
        OpsError: the file does not exist, cannot be read, has a key twice, or a field is wrong; the error
            names the field.
    """
    from pydantic import ValidationError

    try:
        content = load_yaml(file, unique_keys=True) or {}
        if not isinstance(content, dict):
            raise OpsError(f"{file} is not a mapping", "Write lines such as `name: value`.")
        return model.model_validate(content)
    except FileNotFoundError as error:
        raise OpsError(f"{file} does not exist", fix) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] in ("model_type", "dict_type"):
            reason = "it must be a mapping, with lines such as `name: value`"
        raise OpsError(f"{file}: `{field}`: {reason[:1].lower()}{reason[1:]}") from error
    except RepeatedKeyError as error:
        raise OpsError(f"{file}, {error}", "Remove one of them.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise OpsError(f"cannot read {file}: {problem}", "It must be a YAML file.") from error


def parse_yaml(text: str, *, unique_keys: bool = False) -> Any:
    """Return the content of a YAML text, made of plain types.

    Args:
        text: the text.
        unique_keys: as for `load_yaml`.

    Raises:
        yaml.YAMLError: as for `load_yaml`.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        if unique_keys:
            _refuse_repeated_keys(node, set())
        return loader.construct_document(node)
    except RecursionError as error:
        raise YamlLimitError(f"it is nested deeper than {MAX_DEPTH} levels") from error
    except (ValueError, OverflowError) as error:  # such as a date in the 13th month
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Raise YamlLimitError if a document is too deep, or if its aliases unfold to too many values."""
    sizes: dict[int, int] = {}  # id of a node -> values below it and itself, aliases unfolded

    def size_of(node: yaml.Node, above: frozenset[int]) -> int:
        if id(node) in above:
            raise YamlLimitError("an alias contains itself")
        if len(above) > MAX_DEPTH:
            raise YamlLimitError(f"it is nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, yaml.ScalarNode):
            sizes[id(node)] = 1
        elif id(node) not in sizes:
            inside = above | {id(node)}
            sizes[id(node)] = 1 + sum(size_of(child, inside) for child in _children(node))
        return sizes[id(node)]

    total = size_of(root, frozenset())
    if total - len(sizes) > MAX_VALUES:
        raise YamlLimitError(f"its aliases unfold to more than {MAX_VALUES} values")


def _refuse_repeated_keys(node: yaml.Node, checked: set[int]) -> None:
    """Raise RepeatedKeyError if a mapping of a document has a key twice."""
    if id(node) in checked:
        return
    checked.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE_TAG:
                continue
            if (key.tag, key.value) in keys:
                line = key.start_mark.line + 1
                raise RepeatedKeyError(f"line {line}: the key `{key.value}` appears twice")
            keys.add((key.tag, key.value))
    for child in _children(node):
        _refuse_repeated_keys(child, checked)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
