"""Texts that a model samples for rows, interrupted and resumed."""

import pytest
from conftest import FICTIONAL
from scripts import run_script

from unlearnkit.core.files import read_jsonl
from unlearnkit.model.write import (
    alternate_writer,
    generation_rounds,
    paraphrase_writer,
    trace_writer,
)

pytestmark = pytest.mark.run

WRITERS = {
    "make_alternates": (
        alternate_writer,
        "--dataset.alternates",
        "--generation.prompt {question} --generation.max_new_tokens 30 --generation.count 2"
        " --generation.temperature 2 --generation.attempts 40",
    ),
    "make_paraphrases": (
        paraphrase_writer,
        "--dataset.paraphrases",
        "--paraphrases.similarity -1 --paraphrases.max_new_tokens 6 --paraphrases.temperature 2.5"
        " --paraphrases.count 2 --paraphrases.attempts 40",
    ),
    "make_traces": (trace_writer, "--dataset.traces", "--traces.max_new_tokens 12 --traces.temperature 1.5"),
}
"""Script -> its module, the key of its file, its settings."""


def stop_at_save(number: int, write):
    """`write`, which is interrupted the first time that it is called for the `number`th time."""
    calls = iter(range(1, 1000))

    def write_or_stop(path, rows):
        write(path, rows)
        if next(calls) == number:
            raise KeyboardInterrupt

    return write_or_stop


@pytest.mark.parametrize("script", WRITERS)
def test_an_interrupted_writer_ends_with_the_texts_of_one_that_was_not(script, tmp_path, monkeypatch):
    """Rejected texts are asked for again in another chunk than they would have been."""
    module, key, settings = WRITERS[script]
    monkeypatch.setattr(generation_rounds, "CHUNK", 4)
    model = ["--overall.model_name", FICTIONAL / "retain", "--overall.quiet", "true"]
    words = [*model, "--dataset.forget_dataset_name", "Fictional_forget01", *settings.split(), key]
    whole = run_script(script, *words, tmp_path / "whole.jsonl")
    assert whole.returncode == 0, whole.stderr
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_jsonl", stop_at_save(2, module.write_jsonl))
        assert run_script(script, *words, tmp_path / "cut.jsonl").returncode == 130
    assert read_jsonl(tmp_path / "cut.jsonl") != read_jsonl(tmp_path / "whole.jsonl")
    resumed = run_script(script, *words, tmp_path / "cut.jsonl")
    assert resumed.returncode == 0, resumed.stderr
    assert read_jsonl(tmp_path / "cut.jsonl") == read_jsonl(tmp_path / "whole.jsonl")
