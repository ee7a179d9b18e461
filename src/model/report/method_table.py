"""Table of methods, from the registries, the shipped configs and the figures of `make methods`."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...core.files import read_json
from ...core.project import PROJECT
from ...core.registry import Registry
from ...optim import FLATNESS, OPTIMIZERS
from ...unlearn import FORGET, REGULARIZERS, RETAIN, parse_method
from ...unlearn.gradients import COMBINERS
from .grid_table import Cell

CONFIGS = (PROJECT / "configs" / "fictional", PROJECT / "configs" / "reasoning")
FIGURES = PROJECT / "docs" / "methods.csv"
MARKS = "<!-- methods: written by src/exec/make_docs.py -->", "<!-- end of methods -->"

SHOWN = {
    "forget_quality": "forget quality ↑",
    "model_utility": "utility ↑",
    "forget/rougeL": "forget ROUGE-L",
    "seconds": "seconds",
}
KINDS = {
    "forget": FORGET,
    "retain": RETAIN,
    "stacks on any": REGULARIZERS,
    "flatness": FLATNESS,
    "combiner": COMBINERS,
    "optimizer": OPTIMIZERS,
}
NEEDS = {
    "reference_logprob": "one number per row",
    "reference_logits": "initial model's logits",
    "reference_hidden": "initial model's activations",
    "activation_norm": "",
    "hidden": "",
    "reinforced_logits": "a reinforced model",
    "token_ids": "",
    "double_backward": "double backward",
}
ALTERNATES = {
    "refusals": "refusals",
    "mismatched": "other rows' answers",
    "generated": "alternates that the model wrote",
}


def render() -> str:
    """One line per objective, regularizer, wrapper and optimizer."""
    figures, configs = _figures(), _configs()
    head = ["", "also spelt", "paper", "formula", "needs", "cost", "config", *SHOWN.values()]
    lines = [head, ["---"] * len(head)]
    for kind, registry in KINDS.items():
        for name, component in registry.items():
            if component.__doc__ and "Cost: " in component.__doc__:
                described = _description(registry, name, component)
                config = _example_config(kind, name, configs)
                lines.append([f"{kind}: **{name}**", *described, *_config_cells(config, figures)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _description(registry: Registry, name: str, component: type) -> list[str]:
    """Aliases, paper, formula, needs and cost."""
    doc = " ".join((component.__doc__ or "").split())
    paper = re.search(r"arXiv:(\d{4}\.\d{5})", doc)
    formula = re.search(r"Formula: (.*?) Cost: ", doc)
    cost = doc.rpartition("Cost: ")[2].rstrip(".")
    aliases = ", ".join(f"`{alias}`" for alias, target in registry.aliases.items() if target == name)
    link = f"[{paper[1]}](https://arxiv.org/abs/{paper[1]})" if paper else ""
    return [aliases, link, formula[1].replace("|", "\\|") if formula else "", _needs(component), cost]


def _needs(component: type) -> str:
    instance = component()
    found = [NEEDS[need] for need in sorted(getattr(instance, "needs", ())) if NEEDS[need]]
    if alternates := getattr(instance, "alternates", ""):
        found.append(ALTERNATES[alternates])
    return ", ".join(found)


def _configs() -> dict[str, Path]:
    """Method, with optimizer and combiner joined by +, -> the first of its configs on the fictional world."""
    found: dict[str, Path] = {}
    for path in (path for folder in CONFIGS for path in sorted(folder.glob("*.json"))):
        section = read_json(path)["unlearn"]
        if path.stem not in ("target", "retain", "figures", "origin"):
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
    elif kind == "stacks on any":
        yield from method.regularizers
    elif not method.regularizers and not method.flatness and not any(extras.values()):
        # A plain objective is shown by a plain config: its figures are its own.
        yield method.forget if kind == "forget" else method.retain


def _config_cells(config: Path | None, figures: Mapping[str, dict[str, Cell]]) -> list[str]:
    """Link and figures of a config; blank without one."""
    if config is None:
        return [""] * (1 + len(SHOWN))
    cells = figures.get(config.stem, {})
    return [
        f"[{config.stem}]({config.relative_to(PROJECT)})",
        *(str(cells[key]) if key in cells else "" for key in SHOWN),
    ]


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
