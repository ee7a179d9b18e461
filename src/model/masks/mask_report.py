"""Comparison of masks: density by layer and kind of module, and overlap beyond chance."""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table
from torch import Tensor

from ...core.files import UserError, atomic
from ...core.screen import Screen
from ...unlearn.mask.mask_file import density, load_tensors

LAYER = re.compile(r"\.(\d+)\.(.*?)(?:\.weight|\.bias)?$")


def report_files(paths: Sequence[Path]) -> Path:
    """Print density and overlap of mask files and draw their densities as a heat map.

    Returns:
        The heat map, a PNG beside the first file.

    Raises:
        UserError: a file is not a mask file, or has no named, numbered layers.
    """
    if not paths:
        raise UserError("--report: expected one or more mask files")
    masks = {str(path): load_tensors(path) for path in paths}
    numbered = [name for name, mask in masks.items() if any(isinstance(key, int) for key in mask)]
    if numbered:
        raise UserError(
            f"--report: {numbered[0]} has numbers in place of weight names, so it cannot be reported"
        )
    if not any(LAYER.search(name) for mask in masks.values() for name in mask):
        raise UserError("--report: none of the masks has numbered layers to draw")
    screen = Screen()
    for name, mask in masks.items():
        screen.print(_density_table(name, densities(mask)))
    if len(masks) > 1:
        screen.print(_overlap_table(masks))
    target = paths[0].with_name(paths[0].stem + "_report.png")
    _draw_heat_map({name: densities(mask) for name, mask in masks.items()}, target)
    return target


def densities(mask: Mapping[str, Tensor]) -> dict[tuple[str, str], float]:
    """(layer, kind of module) -> density; weights outside of the layers have the layer ''."""
    groups: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, tensor in mask.items():
        found = LAYER.search(name)
        place = (found[1], found[2]) if found else ("", name.removesuffix(".weight").removesuffix(".bias"))
        groups.setdefault(place, {})[name] = tensor
    return {place: density(tensors) for place, tensors in groups.items()}


def overlap(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, float]:
    """Overlap of two masks over all weights.

    Returns:
        jaccard: overlap of the updated weights; chance: its expectation for independent masks of the same
        densities p and q, pq / (p + q - pq); frozen: overlap of the frozen weights.

    Raises:
        UserError: the masks are of different models.
    """
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        raise UserError("--report: the masks are of different models, so they cannot be compared")
    both = sum(int((a[name] & b[name]).sum()) for name in a)
    either = sum(int((a[name] | b[name]).sum()) for name in a)
    total, one, two = sum(mask.numel() for mask in a.values()), density(a), density(b)
    chance = one * two / (one + two - one * two) if one + two else 0.0
    frozen = (total - either) / (total - both) if total > both else 1.0
    return {"jaccard": both / either if either else 1.0, "chance": chance, "frozen": frozen}


def _density_table(title: str, places: Mapping[tuple[str, str], float]) -> Table:
    kinds = list(dict.fromkeys(kind for _, kind in places))
    layers = list(dict.fromkeys(layer for layer, _ in places))
    table = Table(title=f"{title}: share of weights updated")
    table.add_column("module", overflow="fold")
    for layer in layers:
        table.add_column(layer or "–", justify="right")
    for kind in kinds:
        table.add_row(
            kind, *(f"{places[layer, kind]:.3f}" if (layer, kind) in places else "" for layer in layers)
        )
    return table


def _overlap_table(masks: Mapping[str, Mapping[str, Tensor]]) -> Table:
    table = Table(title="overlap (Jaccard) of the updated weights, by chance, and of the frozen ones")
    for title in ("masks", "updated", "by chance", "frozen"):
        table.add_column(title, overflow="fold")
    for (one, a), (two, b) in itertools.combinations(masks.items(), 2):
        found = overlap(a, b)
        table.add_row(f"{one} and {two}", *(f"{found[key]:.3f}" for key in ("jaccard", "chance", "frozen")))
    return table


def _draw_heat_map(masks: Mapping[str, Mapping[tuple[str, str], float]], target: Path) -> None:
    """One panel per mask: layers across, kinds of modules down, darker is denser."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        1, len(masks), figsize=(1 + 5 * len(masks), 4.5), squeeze=False, layout="constrained"
    )
    for panel, (title, places) in zip(panels[0], masks.items()):
        layers = list(dict.fromkeys(layer for layer, _ in places if layer))
        kinds = list(dict.fromkeys(kind for layer, kind in places if layer))
        grid = [[places.get((layer, kind), float("nan")) for layer in layers] for kind in kinds]
        image = panel.imshow(grid, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        panel.set_xticks(range(len(layers)), layers)
        panel.set_yticks(range(len(kinds)), kinds)
        panel.set_title(Path(title).stem)
        panel.set_xlabel("layer")
    figure.colorbar(image, ax=panels[0].tolist(), label="share of weights updated")
    with atomic(target) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)
