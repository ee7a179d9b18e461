"""Settings of the rows."""

import re
from dataclasses import dataclass
from pathlib import Path

from ...core.options import knob
from ...core.thinking import Tags
from ...dataset import dataset_name, known_names, retain_name
from ...dataset.own_rows import column_pair
from .overall_keys import SEEDS

REASONING = ("off", "on", "both")


@dataclass(frozen=True)
class Data:
    """Datasets, templates and tokenisation."""

    forget_dataset_name: str = knob(
        "Fictional_forget10",
        "rows to forget; Folder_<table> are your own, owner/name:split those of any data set of the hub",
        choices=known_names,
        read=dataset_name,
    )
    retain_dataset_name: str = knob(
        "Fictional_retain90", "rows to keep, named likewise", choices=known_names, read=retain_name
    )
    data_dir: str | None = knob(
        None,
        "folder of the data set's files, when not its own place; of Book the book itself or its folder",
        path="file or folder",
    )
    columns: tuple[str, ...] | None = knob(
        None,
        "columns of your own rows (Folder, hub) that have other names: question=prompt answer=response",
        read=column_pair,
        form="a pair such as question=prompt",
    )
    dataset_seed: int = knob(
        0, "seed of the choice of forget rows and of the forget/retain pairs", at_least=0, at_most=SEEDS
    )
    forget_ratio: float = knob(
        1.0, "forget rows to use: a share up to 1, a count above; more than exist means all", above=0
    )
    self_retain: bool = knob(
        False, "retain the forget rows that forget_ratio leaves out, instead of the retain data set"
    )
    batch_size: int = knob(16, "rows per micro-batch and process", at_least=1, at_most=2**20)
    group_by_length: bool = knob(False, "batches of rows of like length: faster, less random")
    template: str = knob(
        "auto", "auto (the chat template if there is one, else qa), chat, qa, or a text with {question}"
    )
    refusals: str | None = knob(
        None,
        "file of refusals, one per line, for what trains refusals; the default is ours",
        path="file",
        only_if=("method.alternates", "refusals"),
    )
    alternates: str | None = knob(
        None,
        "file of alternate answers, written by make_alternates.py and read by AltPO; the default is "
        "files/results/alternates/<forget set>.jsonl",
    )
    paraphrases: str | None = knob(
        None,
        "paraphrases of the forget answers, written by make_paraphrases.py and read by GAO; the default "
        "is files/results/paraphrases/<forget set>.jsonl",
    )
    environment_dataset_name: str = knob(
        "Fictional_arithmetic",
        "unrelated rows to be invariant to, for ILU",
        choices=known_names,
        read=dataset_name,
        only_if=("method.parts", "environment"),
    )
    environment_data_dir: str | None = knob(
        None, "folder of the environment's files, when not its own place", path="folder"
    )
    max_length: int = knob(512, "longest row in tokens; a longer question and answer is an error", at_least=2)
    long_text: str = knob(
        "error",
        "how to handle a longer document in training: an error, its first max_length tokens, "
        "or all of it in pieces",
        choices=("error", "first", "pieces"),
    )

    forget_reasoning: str = knob(
        "off",
        "forget rows that bring their reasoning are trained without it (off), with it between the think "
        "tags (on), or both ways",
        choices=REASONING,
    )
    retain_reasoning: str = knob("off", "the same for the retain rows", choices=REASONING)
    traces: str | None = knob(
        None,
        "the reasoning traces of the forget rows, for R2MU and RTP: a file of make_traces.py; the default is "
        "the rows' own reasoning, else files/results/traces/<forget set>-<model>.jsonl",
    )
    trace_tokens: int = knob(
        256,
        "tokens of a trace that are used; never past its end",
        at_least=1,
        only_if=("method.parts", "traces"),
    )
    trace_context: bool = knob(
        True,
        "put the question that was thought about before a trace; else traces.trigger (released code)",
        only_if=("method.parts", "traces"),
    )
    trace_unclosed: str = knob(
        "keep",
        "traces that the token budget cut",
        choices=("keep", "drop"),
        only_if=("method.parts", "traces"),
    )
    cot_dataset_name: str = knob(
        "Fictional_arithmetic",
        "reasoning about other things that is kept, for R2MU and CoT",
        choices=known_names,
        read=dataset_name,
        only_if=("method.parts", "cot"),
    )
    cot_data_dir: str | None = knob(
        None, "folder of its files, when not its own place", path="folder", only_if=("method.parts", "cot")
    )
    cot_tokens: int = knob(
        512, "tokens of a rationale that are used", at_least=1, only_if=("method.parts", "cot")
    )
    cot_context: bool = knob(
        True,
        "put the question before a rationale (the released code has the rationale alone)",
        only_if=("method.parts", "cot"),
    )
    think_open: str = knob("<think>", "opening think tag")
    think_close: str = knob("</think>", "closing think tag")

    @property
    def tags(self) -> Tags:
        return Tags(self.think_open, self.think_close)

    @property
    def cot_folder(self) -> Path | None:
        return Path(self.cot_data_dir).expanduser() if self.cot_data_dir else None

    @property
    def folder(self) -> Path | None:
        return Path(self.data_dir).expanduser() if self.data_dir else None

    @property
    def environment_folder(self) -> Path | None:
        return Path(self.environment_data_dir).expanduser() if self.environment_data_dir else None

    @property
    def column_names(self) -> dict[str, str]:
        """Our column -> the user's."""
        pairs = [pair.partition("=") for pair in self.columns or ()]
        return {ours: theirs for ours, _, theirs in pairs}

    @property
    def forget_stem(self) -> str:
        """The forget set's name as part of a file name."""
        return re.sub(r"[^\w.+-]+", "-", self.forget_dataset_name).strip("-.")

    @property
    def alternates_file(self) -> Path:
        return Path(self.alternates or f"files/results/alternates/{self.forget_stem}.jsonl").expanduser()

    @property
    def paraphrases_file(self) -> Path:
        return Path(self.paraphrases or f"files/results/paraphrases/{self.forget_stem}.jsonl").expanduser()
