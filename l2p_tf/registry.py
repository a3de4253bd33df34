"""Finds modules of a folder by scanning, and parses names with options: `pgd(steps=20, epsilon=8/255)`.

A registered thing is a frozen dataclass derived from `Options`. Its fields are its options; `option()` gives each a
default, a help line and accepted values. Adding one only takes a file, because nothing else lists it.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import enum
import importlib
import inspect
import itertools
import math
import operator
import pkgutil
import re
import typing
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from l2p_tf import plugins
from l2p_tf.options import Options, bounds_of, further_of, is_finite
from l2p_tf.types import UserError

_BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
           ast.Pow: operator.pow}  # fmt: skip
_NESTED = (ast.expr, ast.keyword)


T = TypeVar("T", bound=Options)

_LONGEST, _DEEPEST, _MOST = 4000, 32, 1000
"""Maximum length of a spec or number, nesting depth, and number of things in a list of specs."""
_ALIASES = {
    "epsilon": ("eps", "radius"),
    "step_size": ("alpha", "eps_step", "eps_iter", "step", "stepsize", "rel_stepsize", "abs_stepsize"),
    "steps": (
        "max_iter", "n_iter", "nb_iter", "num_iter", "num_steps", "n_steps", "iterations", "num_iterations", "iters",
    ),
    "queries": ("n_queries", "max_queries", "num_queries", "max_iter", "iterations", "steps"),
    "generations": ("max_iter", "iterations", "steps"),
    "draws": ("nb_samples", "eot_iter", "eot_samples", "num_samples", "n_samples", "samples", "eot"),
    "restarts": ("n_restarts", "num_restarts", "nb_restarts", "num_random_init"),
    "random_start": ("rand_init", "random_init", "rand_start"),
    "kappa": ("confidence",),
    "norm": ("ord", "p", "lp"),
    "target": ("targeted", "y_target", "target_class"),
    "learning_rate": ("lr",),
    "binary_search_steps": ("nb_binary_search", "n_binary_search"),
    "initial_const": ("c", "initial_c", "initial_constant"),
    "candidates": ("nb_candidate", "num_classes", "nb_grads"),
    "loss": ("loss_fn", "loss_type"),
    "decay": ("mu", "momentum"),
    "std": ("sigma", "noise"),
    "sigma": ("std", "noise", "scale"),
    "adversarial_weight": ("beta", "lam", "trades_beta"),
    "depth": ("num_layers", "layers"),
    "width": ("widen_factor", "width_factor", "widening"),
}  # fmt: skip
"""Names of the options in other libraries and papers."""


class Registry(Generic[T]):
    """Things of one kind, found by importing every public module of `package` on first use."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._classes: dict[str, type[T]] = {}
        self._scanned = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that registers a dataclass as `name`."""

        def decorate(cls: type[T]) -> type[T]:
            if name in self._classes:
                raise ValueError(f"`{name}` is registered twice as {self.kind}.")
            self._classes[name] = cls
            cls.name, cls.plugin = name, plugins.current()  # type: ignore[attr-defined]
            return cls

        return decorate

    def names(self) -> list[str]:
        """Returns the sorted names."""
        self._scan()
        return sorted(self._classes)

    def get(self, name: str) -> type[T]:
        """Returns the dataclass called `name`; raises UserError with the known names if there is none."""
        self._scan()
        if name not in self._classes:
            near = difflib.get_close_matches(name.strip("'\"").lower(), self._classes, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(f"Unknown {self.kind} {name!r}.{hint} Known: {', '.join(self.names())}.")
        return self._classes[name]

    def class_called(self, name: str) -> type[T]:
        """Returns the dataclass by its Python name, such as `PGD`; raises AttributeError, like a module, if unknown."""
        if name[:1].isupper():  # All other names are modules.
            self._scan()
            for cls in self._classes.values():
                if cls.__name__ == name:
                    return cls
        raise AttributeError(f"module {self._package!r} has no attribute {name!r}")

    def class_names(self) -> list[str]:
        """Returns the sorted Python names."""
        self._scan()
        return sorted(cls.__name__ for cls in self._classes.values())

    def parse(self, spec: str) -> T:
        """Parses `name` or `name(option=value, ...)`. Numbers may be written as arithmetic: `8/255`."""
        return self._make(*parse_spec(spec, self.kind))

    def _each(self, spec: str) -> list[T]:
        name, values = parse_spec(spec, self.kind)
        hints = typing.get_type_hints(self.get(name))
        lists = [k for k, v in values.items() if isinstance(v, list) and typing.get_origin(hints.get(k)) is not tuple]
        count = math.prod(len(values[key]) for key in lists)
        if not count:
            raise UserError(f"{self.kind} {spec!r} should give at least one of them. A list in it is empty.")
        if count > _MOST:
            raise UserError(f"{self.kind} {spec!r} should give at most {_MOST} of them. Its lists give {count}.")
        return [
            self._make(name, {**values, **dict(zip(lists, chosen, strict=True))})
            for chosen in itertools.product(*(values[key] for key in lists))
        ]

    def _make(self, name: str, values: dict[str, Any]) -> T:
        cls = self.get(name)
        rest = further_of(cls)
        known = [f.name for f in dataclasses.fields(cls) if f.name != rest]
        if rest:
            own = {key: value for key, value in values.items() if key in known}
            return cls(**own, **{rest: {key: value for key, value in values.items() if key not in known}})
        for key in values:
            if key not in known:
                meant = _meant(key, known)
                hint = f" Did you mean {meant!r}?" if meant else ""
                accepted = ", ".join(known) or "none"
                raise UserError(f"{self.kind} {name!r} has no option {key!r}.{hint} Its options: {accepted}.")
        return cls(**values)

    def parse_list(self, text: str) -> list[T]:
        """Parses specs separated by `;`. A list of values gives one thing per value: `pgd(epsilon=[2/255, 4/255])`."""
        specs = [part.strip() for part in text.split(";") if part.strip()]
        if not specs:
            raise UserError(f"No {self.kind} given: {text!r}. Known: {', '.join(self.names())}.")
        things: list[T] = []
        for spec in specs:
            things += self._each(spec)
            if len(things) > _MOST:
                raise UserError(f"{text!r} should give at most {_MOST} of kind {self.kind}.")
        return things

    def help(self, text: str = "help") -> str | None:
        """Returns the help for `help` or `help(NAME)`; None if `text` is neither.

        Args:
          text: `help` for all names with their options, defaults and meanings; `help(pgd)` for one in full.

        Raises:
          UserError: there is no such name.
        """
        asked = re.fullmatch(r"\s*help\s*(?:\((.*)\)\s*)?", text, re.DOTALL)
        if not asked:
            return None
        if not (asked.group(1) or "").strip():
            return "\n".join(self._explained(name, in_full=False) for name in self.names())
        return self._explained(asked.group(1).strip(), in_full=True)

    def _explained(self, name: str, in_full: bool) -> str:
        cls = self.get(name)
        text = inspect.getdoc(cls) or ""
        lines = [f"{name}: {text if in_full else text.partition(chr(10))[0]}", *([""] if in_full else [])]
        for field in dataclasses.fields(cls):
            if field.metadata.get("further"):
                lines.append(f"    ...  {field.metadata['help']}")
                continue
            choices, bounds = field.metadata.get("choices"), bounds_of(field.metadata) if in_full else ""
            accepted = f" ({', '.join(choices)})" if choices else f" ({bounds})" if bounds else ""
            lines.append(f"    {field.name}={shown(field.default)}{accepted}  {field.metadata.get('help', '')}")
        return "\n".join(lines)

    def _scan(self) -> None:
        if self._scanned:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self._package}.{module.name}")
        self._scanned = True
        plugins.load_installed()


def spec_of(thing: Options) -> str:
    """Returns the canonical spec: the name and all options that differ from their defaults."""
    thing = thing.recorded()
    values = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if getattr(thing, f.name) != f.default}
    rest = dict(values.pop(further_of(type(thing)), ()))
    changed = [f"{name}={shown(value)}" for name, value in {**values, **rest}.items()]
    name: str = thing.name  # type: ignore[attr-defined]
    return f"{name}({', '.join(changed)})" if changed else name


def parse_spec(spec: str, kind: str = "spec") -> tuple[str, dict[str, Any]]:
    """Splits `name(option=value, ...)` into its name and options, without executing anything.

    Raises:
      UserError: the text does not have that form.
    """
    form = f"{kind} {spec!r} should be of the form name or name(option=value, ...)."
    if re.search(r"=\s*([~/.]|[A-Za-z_]\w*[/.-])[\w.~/-]*[A-Za-z]", spec):
        form += " A path is put in quotes, as in path='a/b.csv'."
    node = _parsed(spec, form)
    if isinstance(node, ast.Tuple):
        raise UserError(f"{form} Several are separated by `;`.")
    if isinstance(node, ast.Name):
        return node.id, {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise UserError(form)
    if any(keyword.arg is None for keyword in node.keywords):
        raise UserError(form)
    return node.func.id, {str(k.arg): _value(k.value, form) for k in node.keywords}


def parse_number(text: str) -> float:
    """Parses a number or arithmetic: `0.03`, `8/255`, `1e-4`."""
    message = f"{text!r} should be a number such as 0.03 or 8/255."
    value = _value(_parsed(text, message), message)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(message)
    return float(value)


def _parsed(text: str, message: str) -> ast.expr:
    """Parses the syntax of a text of bounded length and depth, without executing anything."""
    if len(text) > _LONGEST:
        raise UserError(f"{message} It should have at most {_LONGEST:,} characters. Received: {len(text):,}")
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(message) from error
    level, depth = [node], 0
    while level:
        level, depth = (
            [child for parent in level for child in ast.iter_child_nodes(parent) if isinstance(child, _NESTED)],
            depth + 1,
        )
        if depth > _DEEPEST:
            raise UserError(f"{message} It is nested more than {_DEEPEST} deep.")
    return node


def _value(node: ast.expr, message: str) -> Any:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, int | float) and not is_finite(node.value):
            raise UserError(message)
        return node.value
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Tuple | ast.List):
        items = [_value(item, message) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Call):
        return ast.unparse(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand, message)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _number(node.left, message), _number(node.right, message)
        if isinstance(node.op, ast.Pow) and abs(right) > 64:
            raise UserError(message)
        try:
            result = _BINARY[type(node.op)](left, right)
        except ArithmeticError as error:
            raise UserError(message) from error
        if isinstance(result, int | float) and is_finite(result):
            return result
    raise UserError(message)


def _number(node: ast.expr, message: str) -> Any:
    value = _value(node, message)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e12:
        raise UserError(message)
    return value


def _meant(key: str, known: list[str]) -> str | None:
    """Returns the option that an unknown name probably means: an alias or a similar spelling; None if there is none."""
    plain = key.strip("_").lower()
    aliased = [name for name in known if plain in _ALIASES.get(name, ())]
    return next(iter([*aliased, *difflib.get_close_matches(plain, known, n=1)]), None)


def shown(value: Any) -> str:
    """Formats a value as in a spec."""
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, float):
        plain, in_255ths = f"{value:.12g}", round(value * 255)
        # Write radii as papers do, if that is shorter.
        return f"{in_255ths}/255" if len(plain) > 7 and value == in_255ths / 255 and abs(value) <= 1 else plain
    return value if isinstance(value, str) and value.isidentifier() else repr(value)
