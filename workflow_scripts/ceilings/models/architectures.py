"""What the installed Transformers declares of an architecture, read from its source.

An import of it takes seconds, and planning runs in every job. Standard library only.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ceilings.errors import UserError
from ceilings.models import config_keys


@dataclasses.dataclass(frozen=True)
class Declared:
    """The configuration of an architecture.

    Attributes:
        defaults: Value of each key; None where it is computed.
        aliases: Further names of keys.
    """

    defaults: Mapping[str, Any]
    aliases: Mapping[str, str]

    def canonical(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """``changes`` with aliases replaced by the keys that they stand for."""
        return {self.aliases.get(key, key): value for key, value in changes.items()}

    @property
    def sizes(self) -> list[str]:
        """The keys that say how large the network is: numbers above 2, and lists of such, that are no ids of tokens."""
        return [key for key, value in self.defaults.items() if _is_size(key, value)]


def refuse_unknown_architecture(architecture: str, further: tuple[str, ...], name: str) -> None:
    """Refuse an architecture that Transformers does not know.

    Args:
        architecture: As a study or a config.json names it.
        further: What is known besides.
        name: The model's, for messages.

    Raises:
        UserError: With the nearest names.
    """
    known = {*_classes(), *further}
    if _classes() and architecture not in known:
        near = difflib.get_close_matches(architecture, known, 3, 0.7)
        hint = f"did you mean {', '.join(near)}? Else " if near else ""
        raise UserError(
            f"model {name!r}: the installed transformers knows no architecture {architecture!r}; {hint}install a "
            "release that knows it"
        )


def refuse_unknown_keys(
    architecture: str, changes: Mapping[str, Any], base: Mapping[str, Any] | None, name: str
) -> None:
    """Refuse keys of ``changes`` that neither the architecture nor ``base`` knows.

    Raises:
        UserError: With the nearest keys that are known.
    """
    if (known := declared(architecture)) is None:
        return  # Its class checks them, once the weights are made.
    names = {*known.defaults, *known.aliases, *config_keys.LABELS, *config_keys.OURS, *(base or ())}
    names |= {*config_keys.UNDECLARED.get(architecture, ()), *_common()}
    for key in changes:
        config_keys.refuse_unknown(key, names - {*config_keys.INTERNAL}, architecture, name)


@functools.cache
def declared(architecture: str) -> Declared | None:
    """What the configuration class of an architecture declares; None where that cannot be read from its source."""
    module, kind = _modules().get(architecture, architecture.replace("-", "_")), _classes().get(architecture)
    folder = _folder()
    if folder is None or kind is None:
        return None
    tree = _parsed(folder / "models" / module / f"configuration_{module}.py")
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)} if tree else {}
    defaults: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    while kind in classes:
        bases = [node.id for node in classes[kind].bases if isinstance(node, ast.Name)]
        if "BackboneConfigMixin" in bases:
            bases.remove("BackboneConfigMixin")
            defaults |= dict.fromkeys(("out_features", "out_indices"))
        for key, value in _assigned(classes[kind]):
            if key == "attribute_map":
                aliases = {**(_literal(value) or {}), **aliases}
            elif isinstance(value, ast.AST):
                defaults.setdefault(key, _literal(value))
        kind = bases[0] if len(bases) == 1 else None
    return Declared(defaults, aliases) if defaults and kind == "PreTrainedConfig" else None


@functools.cache
def _folder() -> Path | None:
    spec = importlib.util.find_spec("transformers")
    return Path(spec.origin).parent if spec and spec.origin else None


@functools.cache
def _classes() -> dict[str, str]:
    """Name of the configuration class of each architecture; empty where the source is of another form."""
    return _table("CONFIG_MAPPING_NAMES")


@functools.cache
def _modules() -> dict[str, str]:
    """Module of the architectures whose module has another name."""
    return _table("SPECIAL_MODEL_TYPE_TO_MODULE_NAME")


def _table(name: str) -> dict[str, str]:
    """All literal pairs that make up a table of the automatic classes."""
    folder = _folder()
    pairs: dict[str, str] = {}
    for file in ("auto_mappings.py", "configuration_auto.py") if folder else ():
        tree = _parsed(folder / "models" / "auto" / file)  # type: ignore[operator]
        for node in tree.body if tree else ():
            if any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node)):
                pairs |= _pairs(node)
    return pairs


def _pairs(node: ast.AST) -> dict[str, str]:
    found = {}
    for part in ast.walk(node):
        value = _literal(part) if isinstance(part, ast.Dict | ast.List) else None
        with_pairs = value.items() if isinstance(value, dict) else value or ()
        for pair in with_pairs:
            if isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(word, str) for word in pair):
                found[pair[0]] = pair[1]
    return found


@functools.cache
def _common() -> frozenset[str]:
    """Keys of every configuration."""
    folder = _folder()
    tree = _parsed(folder / "configuration_utils.py") if folder else None
    kinds = [node for node in tree.body if isinstance(node, ast.ClassDef)] if tree else []
    return frozenset(key for kind in kinds if kind.name == "PreTrainedConfig" for key, _ in _assigned(kind))


def _assigned(kind: ast.ClassDef) -> Iterator[tuple[str, ast.expr | None]]:
    for node in kind.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if not node.target.id.startswith("_") and "ClassVar" not in ast.dump(node.annotation):
                yield node.target.id, node.value
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "attribute_map":
            yield "attribute_map", node.value


def _parsed(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


def _literal(node: ast.AST | None) -> Any:
    """The value of an expression of literals and products; None of another."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _literal(node.left), _literal(node.right)
        return left * right if isinstance(left, int) and isinstance(right, int) else None
    try:
        return ast.literal_eval(node)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return None


def _is_size(key: str, value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(_is_size(key, item) for item in value)
    return isinstance(value, int) and not isinstance(value, bool) and value > 2 and not key.endswith(("_id", "_index"))
