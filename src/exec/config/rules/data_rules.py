"""Rules on data sets and rows."""

import re
from pathlib import Path

from ....core.files import UserError
from ....dataset import parse_name
from ....model.settings.run_settings import Settings
from .method_rules import parts_of


def missing_files(settings: Settings) -> list[str]:
    """What a training run reads and another script of ours must have written first."""
    found, data = [], settings.dataset
    if "traces" in parts_of(settings) and data.traces and not settings.traces_file.is_file():
        found.append(
            f"dataset.traces: there is no file {settings.traces_file}; src/exec/make_traces.py with the same"
            " config writes it"
        )
    if "paraphrases" in parts_of(settings) and not data.paraphrases_file.is_file():
        what = "is a folder" if data.paraphrases_file.is_dir() else "does not exist"
        found.append(
            f"dataset.paraphrases: {data.paraphrases_file} {what}; src/exec/make_paraphrases.py with the same"
            " config writes it"
        )
    alternates = {objective.alternates for objective in settings.components.values()}
    if "generated" in alternates and not data.alternates_file.is_file():
        found.append(
            f"dataset.alternates: there is no file {data.alternates_file}; src/exec/make_alternates.py with"
            " the same config writes it"
        )
    mask = settings.unlearn.mask_path and Path(settings.unlearn.mask_path).expanduser()
    if mask and not mask.is_file():
        named = re.fullmatch(r"(.+)_(\d*\.?\d+)", mask.stem)
        task, ratio = named.groups() if named else ("TASK", "RATIO")
        found.append(
            f"unlearn.mask_path: there is no file {mask}; fetch it: src/exec/download_mask.py {task} {ratio}"
            f" --out {mask.parent}, or make it: src/exec/make_mask.py with the same config and --mask.ratios"
            f" {ratio} --mask.out {mask.parent}"
        )
    return found


def data_errors(settings: Settings) -> list[str]:
    found = []
    data = settings.dataset
    source, split = parse_name(data.forget_dataset_name)
    if not source.can_forget(split):
        able = ", ".join(f"{source.title}_{name}" for name in source.forget_splits)
        found.append(
            f"dataset.forget_dataset_name: {data.forget_dataset_name} cannot be forgotten;"
            f" {source.title} {f'has {able}' if able else 'is to be retained, or a neutral text'}"
        )
    if data.self_retain and not settings.method.forget:
        found.append("dataset.self_retain needs a method with a forget objective")
    if data.self_retain and data.forget_ratio == 1:
        found.append("dataset.self_retain: dataset.forget_ratio 1 leaves no forget row to retain; lower it")
    for part in ("traces", "alternate", "paraphrases"):
        if part in parts_of(settings) and data.forget_reasoning == "both":
            found.append(
                f"dataset.forget_reasoning both: {settings.method.name} takes one row of its part {part!r}"
                " with each forget row; set it to on or off"
            )
        if part == "traces" in parts_of(settings) and data.long_text == "pieces":
            found.append(
                f"dataset.long_text pieces: the traces of {settings.method.name} go with whole rows; set"
                " it to first"
            )
    if not data.think_open or not data.think_close or data.think_open == data.think_close:
        found.append("dataset.think_open and dataset.think_close must be two different marks")
    if "{question}" not in data.template and data.template not in ("auto", "chat", "qa"):
        found.append(
            f"dataset.template: expected auto, chat, qa or a text with {{question}}, got {data.template!r}"
        )
    parts = parts_of(settings)
    alternates = {objective.alternates for objective in settings.components.values()}
    retains = ("retain" in parts and not data.self_retain) or "mismatched" in alternates
    other, kept = parse_name(data.retain_dataset_name)
    partner = source.partner(split)
    if retains and settings.method.forget and source is other and partner and kept != partner:
        found.append(
            f"dataset.retain_dataset_name: {data.retain_dataset_name} overlaps with"
            f" {data.forget_dataset_name} or has another share; take {source.title}_{partner}"
        )
    wanted = {
        (name, data.folder, "data_dir")
        for name in (data.forget_dataset_name, *([data.retain_dataset_name] if retains else []))
    }
    wanted |= (
        {(data.environment_dataset_name, data.environment_folder, "environment_data_dir")}
        if "environment" in parts
        else set()
    )
    wanted |= {(data.cot_dataset_name, data.cot_folder, "cot_data_dir")} if "cot" in parts else set()
    for name, folder, key in wanted:
        source, split = parse_name(name)
        if folder and folder.is_file() and not source.takes_file:
            found.append(f"dataset.{key}: {folder} is a file; {source.title} reads the files of a folder")
            continue
        try:
            source(folder).check(split)
        except UserError as error:
            found.append(str(error).replace("dataset.data_dir", f"dataset.{key}"))
    return sorted(set(found))


def data_warnings(settings: Settings) -> list[str]:
    """What is allowed and probably not meant about the rows."""
    found, data = [], settings.dataset
    forget, retain = (parse_name(n)[0] for n in (data.forget_dataset_name, data.retain_dataset_name))
    if not forget.measured:
        found.append(f"{data.forget_dataset_name} has no rows to measure: every metric will be null")
    trains_on_retain = settings.method.forget and "retain" in parts_of(settings) and not data.self_retain
    if trains_on_retain and forget.own != retain.own:
        found.append(
            f"the rows to forget are {data.forget_dataset_name} and those to keep"
            f" {data.retain_dataset_name}: is dataset.retain_dataset_name meant to be your own rows too?"
        )
    return found
