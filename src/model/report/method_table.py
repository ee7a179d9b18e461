"""Tables of docs/methods.md, from the registries, the shipped configs and the figures of `make methods`."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...core.files import read_json
from ...core.markdown import table
from ...core.project import PROJECT
from ...core.registry import Registry
from ...optim import FLATNESS, OPTIMIZERS
from ...unlearn import FORGET, REGULARIZERS, RETAIN, parse_method
from ...unlearn.gradients import COMBINERS
from .grid_table import Cell

FICTIONAL = PROJECT / "configs" / "fictional"
TUNED = PROJECT / "configs" / "fictional_tuned"
CONFIGS = (FICTIONAL, PROJECT / "configs" / "reasoning")
FIRST_RUN = FICTIONAL / "altpo+ft_ngdiff.json"
"""The run of `make demo`."""
NO_METHODS = ("target", "retain", "figures", "figures_thinking", "origin")
"""Configs that make no model forget."""
FIGURES = PROJECT / "docs" / "methods.csv"
MARKS = "<!-- methods: written by src/exec/make_docs.py -->", "<!-- end of methods -->"

SHOWN = {
    "forget_quality": "forget quality ↑",
    "model_utility": "utility ↑",
    "forget/rougeL": "forget ROUGE-L",
    "seconds": "seconds",
}
KINDS = {
    "Forget objectives": ("forget", FORGET),
    "Retain objectives": ("retain", RETAIN),
    "Terms that stack on any method": ("stacks", REGULARIZERS),
    "Flatness wrappers": ("flatness", FLATNESS),
    "Gradient combiners": ("combiner", COMBINERS),
    "Optimizers": ("optimizer", OPTIMIZERS),
}
"""Heading -> kind of component, and all of that kind."""
NEEDS = {
    "reference_logprob": "reference log-probability, one number per row",
    "reference_logits": "reference model's logits",
    "reference_hidden": "reference model's activations",
    "activation_norm": "",
    "hidden": "",
    "reinforced_logits": "logits of a reinforced model",
    "token_ids": "",
    "double_backward": "double backward",
}
ALTERNATES = {
    "refusals": "refusals",
    "mismatched": "other rows' answers",
    "generated": "alternate answers (make_alternates.py)",
}


def render() -> str:
    """Per kind of component a table of formulas and one of needs and costs; one table of figures for all."""
    figures, configs, parts, measured = _figures(), _configs(), [], []
    for heading, (kind, registry) in KINDS.items():
        shown = {
            name: component for name, component in registry.items() if "Cost: " in (component.__doc__ or "")
        }
        found = {name: _example_config(kind, name, configs) for name in shown}
        parts += [
            f"\n## {heading}\n\n",
            table(
                ["name", "aliases", "paper", "formula"],
                [
                    [f"**{name}**", *_definition(registry, name, component)]
                    for name, component in shown.items()
                ],
            ),
            "\n",
            table(
                ["name", "needs", "cost", "config"],
                [
                    [f"**{name}**", _needs(component), _cost(component), _link(found[name])]
                    for name, component in shown.items()
                ],
            ),
        ]
        measured += [
            [f"{kind}: **{name}**", _link(_measured(config)), *_figure_cells(figures[config.stem])]
            for name, config in found.items()
            if config and config.parent == FICTIONAL and config.stem in figures
        ]
    if FIRST_RUN.stem in figures:
        measured.append(["`make demo`", _link(FIRST_RUN), *_figure_cells(figures[FIRST_RUN.stem])])
    parts += [
        "\n## Figures on the fictional world\n\n",
        table(["component", "config", *SHOWN.values()], measured),
    ]
    return "".join(parts)


def _definition(registry: Registry, name: str, component: type) -> list[str]:
    """Aliases, paper and formula."""
    doc = " ".join((component.__doc__ or "").split())
    paper = re.search(r"arXiv:(\d{4}\.\d{5})", doc)
    formula = re.search(r"Formula: (.*?) Cost: ", doc)
    aliases = ", ".join(f"`{alias}`" for alias, target in registry.aliases.items() if target == name)
    link = f"[{paper[1]}](https://arxiv.org/abs/{paper[1]})" if paper else ""
    return [aliases, link, formula[1] if formula else ""]


def _cost(component: type) -> str:
    return " ".join((component.__doc__ or "").split()).rpartition("Cost: ")[2].rstrip(".")


def _needs(component: type) -> str:
    instance = component()
    found = [NEEDS[need] for need in sorted(getattr(instance, "needs", ())) if NEEDS[need]]
    if alternates := getattr(instance, "alternates", ""):
        found.append(ALTERNATES[alternates])
    return ", ".join(found)


def _configs() -> dict[str, Path]:
    """Method, with optimizer and combiner joined by +, -> the first of its configs on the fictional world
    that has no mask."""
    found: dict[str, Path] = {}
    for path in (path for folder in CONFIGS for path in sorted(folder.glob("*.json"))):
        section = read_json(path)["unlearn"]
        if path.stem not in NO_METHODS and "mask_path" not in section:
            extras = [section[key] for key in ("optimizer", "combiner") if key in section]
            found.setdefault("+".join([section["unlearn_method"], *extras]), path)
    return found


def _example_config(kind: str, name: str, configs: Mapping[str, Path]) -> Path | None:
    """The config of the method with the fewest other components; None without any."""

    def simplicity(method: str) -> tuple:
        return method.count("+"), "+FT" not in method, not method.startswith("NPO+FT"), method

    fitting = [method for method in configs if name in _components(kind, method)]
    return configs[min(fitting, key=simplicity)] if fitting else None


def _components(kind: str, text: str) -> Iterator[str | None]:
    """The components of one kind in a key of `_configs`."""
    words = text.split("+")
    extras = {
        "optimizer": [word for word in words if word in OPTIMIZERS],
        "combiner": [word for word in words if word in COMBINERS],
    }
    method = parse_method(
        "+".join(word for word in words if word not in OPTIMIZERS and word not in COMBINERS)
    )
    if kind in extras:
        yield from extras[kind]
    elif kind == "flatness":
        yield method.flatness
    elif kind == "stacks":
        yield from method.regularizers
    elif not method.regularizers and not method.flatness and not any(extras.values()):
        # A plain objective is shown by a plain config: its figures are its own.
        yield method.forget if kind == "forget" else method.retain


def _measured(config: Path) -> Path:
    """The config whose figures are shown, as `make methods` chooses it: the winner of the sweep, where it was
    in it."""
    tuned = TUNED / config.name
    return tuned if tuned.is_file() else config


def _link(config: Path | None) -> str:
    """A link from the docs folder; blank where no config shows the component."""
    return f"[{config.stem}](../{config.relative_to(PROJECT)})" if config else ""


def _figure_cells(cells: Mapping[str, Cell]) -> list[str]:
    return [str(cells[key]) if key in cells else "" for key in SHOWN]


def _figures() -> dict[str, dict[str, Cell]]:
    """Config name -> metric -> cell, from the committed table."""
    if not FIGURES.is_file():
        return {}

    def number(text: str) -> float | None:
        return json.loads(text) if text else None

    with FIGURES.open(encoding="utf-8") as file:
        return {
            row["run"]: {
                key: Cell(number(row[key]), number(row[f"{key} sd"]), int(row[f"{key} n"]))
                for key in SHOWN
                if key in row
            }
            for row in csv.DictReader(file)
        }
