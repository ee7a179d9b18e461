"""make_traces.py, and runs that read what it wrote."""

import sys
import types

import pytest
from conftest import FICTIONAL, GOLDEN
from scripts import run_script
from tiny import greeting_template, one_word_llama, save

from unlearnkit.core.encoding import Template
from unlearnkit.core.files import UserError, read_jsonl, write_jsonl
from unlearnkit.dataset import load_rows
from unlearnkit.model.load.loading import load_tokenizer
from unlearnkit.model.write.trace_writer import cut, cut_text

pytestmark = pytest.mark.run

TARGET = str(FICTIONAL / "target")


def make(path, *flags):
    return run_script(
        "make_traces",
        "--dataset.traces",
        path,
        *(
            "--dataset.forget_dataset_name Fictional_forget01 --traces.max_new_tokens 100 "
            "--overall.quiet true"
        ).split(),
        *flags,
    )


def test_traces_are_written_once_and_go_on_where_they_broke_off(tmp_path):
    path = tmp_path / "traces.jsonl"
    done = make(path)
    assert done.returncode == 0, done.stderr
    assert "10 traces of 10 rows, 10 closed, 0 empty" in done.stdout
    header, *lines = read_jsonl(path)
    rows = load_rows("Fictional_forget01", None)
    assert [(line["row"], line["trace"]) for line in lines] == [(row["id"], row["cot"]) for row in rows]
    whole = path.read_text()
    write_jsonl(path, [header, *lines[:4]])
    assert make(path).returncode == 0
    assert path.read_text() == whole
    for flags, told in [
        (("--traces.temperature", "1"), "written with other settings"),
        (("--dataset.forget_dataset_name", "Fictional_forget05"), "written with other data"),
        (("--overall.model_name", str(FICTIONAL / "retain")), "written with other model"),
    ]:
        refused = make(path, *flags)
        assert refused.returncode == 1
        assert told in refused.stderr
        assert path.read_text() == whole


def test_a_trace_ends_where_the_template_ends_a_turn(tokenizer, tmp_path):
    model = save(*one_word_llama(tokenizer), tmp_path / "model")
    done = make(tmp_path / "t.jsonl", "--overall.model_name", model)
    assert done.returncode == 0, done.stderr
    lines = read_jsonl(tmp_path / "t.jsonl")[1:]
    assert [(line["trace"], line["n_tokens"]) for line in lines] == [("Orlo", 1)] * 10


def test_a_file_is_not_gone_on_with_under_another_chat_template(tokenizer, tmp_path):
    path, model = tmp_path / "t.jsonl", save(*one_word_llama(tokenizer), tmp_path / "model")
    assert make(path, "--overall.model_name", model).returncode == 0
    write_jsonl(path, read_jsonl(path)[:4])
    greeting_template(model)
    refused = make(path, "--overall.model_name", model)
    assert refused.returncode == 1
    assert "t.jsonl was written with other template; choose another file" in refused.stderr
    assert len(read_jsonl(path)) == 4


@pytest.mark.slow
def test_a_run_reads_them_and_refuses_those_of_other_rows(small_world, tmp_path):
    path, root = tmp_path / "traces.jsonl", tmp_path / "results"
    assert make(path).returncode == 0
    flags = (
        *"--unlearn.unlearn_method R2MU --unlearn.R2MU.layer 1".split(),
        *("--dataset.traces", path, "--dataset.cot_data_dir", small_world),
        *"--evaluate.before false --evaluate.metrics forget/exact".split(),
        "--logger.json.root",
        root,
        *"--overall.quiet true --unlearn.max_steps 2 --dataset.batch_size 4".split(),
    )
    done = run_script(
        "unlearn_model", *flags, *"--dataset.forget_dataset_name Fictional_forget01 --logger.name r".split()
    )
    assert done.returncode == 0, done.stderr
    log = read_jsonl(root / "r/log.jsonl")
    assert all({"steering", "unthink", "retain_embed", "cot"} <= set(step) for step in log if "loss" in step)
    refused = run_script(
        "unlearn_model", *flags, *"--dataset.forget_dataset_name Fictional_forget05 --logger.name s".split()
    )
    assert refused.returncode == 1
    assert "has no line for 40 of 50 forget rows" in refused.stderr
    assert not (root / "s").exists()


@pytest.mark.parametrize(
    "flags, code, told",
    [
        (("--traces.max_new_tokens", "2000"), 1, "exceeds the model's context of 1024; at most 10"),
        (("--dataset.template", "qa"), 1, "thinking needs a template with <think>"),
        (("--traces.segments", "0"), 2, "traces.segments"),
        (("--dataset.think_open", "[T]"), 1, "a tokenizer that knows [T]"),
        (("--dataset.traces", "src"), 1, "dataset.traces: src is a folder"),
        (("--overall.model_name", "nowhere"), 2, "overall.model_name: there is no folder nowhere"),
    ],
)
def test_bad_input_ends_before_anything_is_written(tmp_path, flags, code, told):
    done = make(tmp_path / "t.jsonl", *flags)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "t.jsonl").exists()


def test_reasoning_that_is_too_long_is_refused(tmp_path):
    flags = (
        *(
            "--unlearn.unlearn_method R2MU --dataset.max_length 60 "
            "--dataset.forget_dataset_name Fictional_forget01"
        ).split(),
        "--logger.json.root",
        tmp_path,
        "--overall.quiet",
        "true",
    )
    done = run_script("unlearn_model", *flags)
    assert done.returncode == 1
    assert "more than dataset.max_length 60; lower dataset.cot_tokens or raise that" in done.stderr


def test_an_original_model_with_another_tokenizer_is_refused_before_training(tmp_path, tiny_model):
    from transformers import AutoTokenizer

    other = tmp_path / "other"
    tiny_model.save_pretrained(other)
    AutoTokenizer.from_pretrained(GOLDEN / "metrics/tokenizer").save_pretrained(other)
    done = run_script(
        "unlearn_model",
        "--unlearn.unlearn_method",
        "GA",
        "--evaluate.original_model",
        other,
        "--logger.json.root",
        tmp_path,
    )
    assert done.returncode == 1
    assert "evaluate.original_model" in done.stderr
    assert "has another tokenizer than the run" in done.stderr


def test_documents_are_cut_between_words_and_the_trigger_stands_where_it_is_wanted(tokenizer):
    text = " ".join(f"word{n}" for n in range(60))
    pieces = cut_text(text, tokenizer, 32, 8)
    assert " ".join(pieces) == text or text.startswith(" ".join(pieces))
    assert all(len(tokenizer(piece)["input_ids"]) <= 40 for piece in pieces)
    assert len(pieces) > 2
    assert cut_text("few words", tokenizer, 32, 8) == ["few words"]


@pytest.mark.parametrize("position, first, last", [("before", "Think.", "page"), ("after", "A", "Think.")])
def test_a_segment_has_the_trigger_before_or_after(position, first, last, tokenizer):
    from unlearnkit.model.settings.data_keys import Data
    from unlearnkit.model.settings.writing_keys import Tracing

    plan = Tracing(trigger="Think.", trigger_position=position, segments=2, segment_tokens=24)
    settings = types.SimpleNamespace(traces=plan, dataset=Data())
    segments = list(cut({"id": "d", "text": "A page " * 40}, Template(tokenizer), settings))
    assert [segment["id"] for segment in segments] == ["d#0", "d#1"]
    assert segments[0]["prompt"].split()[0] == first
    assert segments[0]["prompt"].split()[-1] == last
    assert tokenizer.decode(segments[0]["prompt_ids"]).endswith("<think>")


def test_vllm_is_asked_for_by_name_and_its_output_becomes_the_same_lines(tmp_path, monkeypatch):
    """vLLM needs a GPU: a stand-in module answers in its shape."""
    from unlearnkit.exec.cli import read_settings
    from unlearnkit.model.write.trace_writer import write_traces

    settings = read_settings(
        [
            "--dataset.forget_dataset_name",
            "Fictional_forget01",
            "--dataset.traces",
            str(tmp_path / "t.jsonl"),
            *"--traces.backend vllm --overall.quiet true".split(),
        ],
        "",
    )
    with pytest.raises(UserError, match="traces.backend vllm: the package vllm is not installed"):
        write_traces(settings)
    tokenizer, asked = load_tokenizer(TARGET), []

    class LLM:
        def __init__(self, **options):
            asked.append(options)

        def generate(self, prompts, sampling):
            ids = tokenizer("So.</think>Orlo.<|end|>", add_special_tokens=False)["input_ids"][:-1]
            return [
                types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=ids, finish_reason="stop")])
                for _ in prompts
            ]

    module = types.ModuleType("vllm")
    module.LLM, module.SamplingParams, module.__spec__ = (
        LLM,
        lambda **options: asked.append(options),
        types.SimpleNamespace(),
    )
    monkeypatch.setitem(sys.modules, "vllm", module)
    lines = read_jsonl(write_traces(settings))[1:]
    assert [(line["trace"], line["answer"], line["closed"]) for line in lines] == [
        ("So.", "Orlo.", True)
    ] * 10
    assert asked[0]["model"] == TARGET.replace(str(FICTIONAL), "files/models/fictional")
    assert asked[1]["max_tokens"] == 512
    assert asked[1]["stop_token_ids"] == tokenizer("<|end|>", add_special_tokens=False)["input_ids"]
