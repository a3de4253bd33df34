"""What the pages hold that is not typed: tables of committed CSV, options of the registries, notebooks, equations.

`{{ name(arguments) }}` on a line of its own calls a function of `MACROS`. Equations are written as GitHub shows them,
in a fence of `math` or between $` and `$. They become MathML, which browsers draw by themselves.
"""

from __future__ import annotations

import ast
import base64
import csv
import dataclasses
import importlib
import inspect
import json
import os
import pathlib
import pkgutil
import re
from typing import Any

import latex2mathml.converter
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
_MACRO = re.compile(r"^\{\{ (\w+)\((.*)\) \}\}$", re.MULTILINE)
_KINDS = {
    "attack": ("l2p_tf.attacks", "ATTACKS"),
    "defense": ("l2p_tf.defenses", "DEFENSES"),
    "model": ("l2p_tf.models", "MODELS"),
    "dataset": ("l2p_tf.data", "DATASETS"),
    "certificate": ("l2p_tf.certification.base", "CERTIFICATES"),
}


def table(name: str, *only: str) -> str:
    """A table of `docs/data/NAME.csv`; its first line, a comment, says how it was measured.

    Args:
      name: of the file.
      only: first cells of the rows to show; all without.
    """
    return _csv(ROOT / "docs" / "data" / f"{name}.csv", only)


def options(kind: str, name: str) -> str:
    """The options of what is registered, with defaults, what they accept and what they decide."""
    from l2p_tf.options import bounds_of
    from l2p_tf.registry import shown

    rows = [["option", "default", "accepts", "decides"]]
    for field in dataclasses.fields(_registry(kind).get(name)):
        held = field.metadata
        accepted = ", ".join(f"`{one}`" for one in held.get("choices") or ()) or bounds_of(held)
        rows.append([f"`{field.name}`", f"`{shown(field.default)}`", accepted, held.get("help", "")])
    return _table(rows) if len(rows) > 1 else "It has no options."


def registered(kind: str, *names: str) -> str:
    """All that is registered of a kind, or these names, each with the first line of its docstring."""
    registry = _registry(kind)
    rows = [["name", "what it is"]]
    for name in names or registry.names():
        about = (inspect.getdoc(registry.get(name)) or "").partition("\n")[0]
        link = f"[`{name}`]({name}.md)" if kind == "defense" else f"`{name}`"
        rows.append([link, about])
    return _table(rows)


def configs(prefix: str = "") -> str:
    """The flag files that are shipped, by name, with the first sentence of each."""
    from stages import configs as shipped

    rows = [["`--config=`", "what it is"]]
    for line in shipped.listed().splitlines():
        name, about = line.split(maxsplit=1)
        if name.startswith(prefix):
            rows.append([f"`{name}`", about])
    return _table(rows)


def experiments() -> str:
    """The papers' tables and figures that `--experiment` takes."""
    from stages import experiment

    rows = [line.split(maxsplit=1) for line in experiment.listed().splitlines()]
    return _table([["`--experiment=`", "what it reproduces"], *([f"`{name}`", about] for name, about in rows)])


def modules(package: str, *but: str) -> str:
    """The API of every module of a package."""
    found = importlib.import_module(package)
    names = [one.name for one in pkgutil.iter_modules(found.__path__) if not one.name.startswith("_")]
    return "\n\n".join(f"::: {package}.{name}" for name in names if name not in but)


def include(path: str, instead: str = "") -> str:
    """A Markdown file of the repository without its title; `instead` where it is not there."""
    file = ROOT / path
    return re.sub(r"\A# .*\n", "", file.read_text("utf-8")) if file.is_file() else instead


def results(instead: str) -> str:
    """`results/README.md`, or every `results/*.csv`; `instead` where there are none."""
    text = include("results/README.md")
    if text:
        text = re.sub(r"\]\(\.\./docs/", "](", text)
        return re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", text)  # Of links to files that are not in the site.
    files = sorted((ROOT / "results").glob("*.csv"))
    return "\n\n".join(f"## {file.stem}\n\n{_csv(file)}" for file in files) or instead


MACROS = {one.__name__: one for one in (table, options, registered, configs, experiments, modules, include, results)}


def on_files(files: Any, config: Any) -> Any:
    """Adds a page and its pictures for every notebook, as it was last run, and the files of `results/`."""
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        text, pictures = _notebook(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, picture in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
    for path in sorted((ROOT / "results").rglob("*")):
        if path.is_file() and path.suffix != ".md":
            name = path.relative_to(ROOT / "results").as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Calls the macros and draws the equations of a page."""
    markdown = _MACRO.sub(_call, markdown)
    markdown = re.sub(r"^```math\n(.*?)^```$", lambda m: f"<p>{_math(m[1], 'block')}</p>", markdown, flags=re.M | re.S)
    return re.sub(r"\$`(.+?)`\$", lambda m: f"<span>{_math(m[1], 'inline')}</span>", markdown)


def _call(match: re.Match[str]) -> str:
    arguments = ast.literal_eval(f"({match[2]},)") if match[2].strip() else ()
    return MACROS[match[1]](*arguments)


def _math(text: str, display: str) -> str:
    drawn: str = latex2mathml.converter.convert(" ".join(text.split()), display=display)
    return drawn.replace("<mi>&#x02032;</mi>", "<mo>&#x02032;</mo>")  # A prime is no letter to slant.


def _registry(kind: str) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    module, name = _KINDS[kind]
    return getattr(importlib.import_module(module), name)


def _csv(path: pathlib.Path, only: tuple[str, ...] = ()) -> str:
    lines = path.read_text("utf-8").splitlines()
    notes = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    head, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    missing = set(only) - {row[0] for row in rows}
    if missing:
        raise ValueError(f"{path.name} has no row {sorted(missing)[0]!r}.")
    shown = _table([head, *(row for row in rows if not only or row[0] in only)])
    return "\n".join([shown, "", f"*{' '.join(notes)}*" if notes else ""])


def _table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _notebook(path: pathlib.Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![{source.splitlines()[0].lstrip('# ')}]({name})")
            else:
                parts.append("```text\n" + "".join(data["text/plain"]).rstrip() + "\n```")
    parts.append(f"[Download this notebook]({path.name})")
    return "\n\n".join(parts), pictures
