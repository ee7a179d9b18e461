"""Think tags, ways of asking, and what counts as an answer; on templates of three families."""

import copy
from dataclasses import replace

import pytest
import torch

from unlearnkit.core.encoding import Template
from unlearnkit.core.files import UserError
from unlearnkit.core.generation import DecodingOptions, Generation, generate, generate_with_rounds
from unlearnkit.core.thinking import SHORT_TRACE, Tags, split_trace

QWEN3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}{% if"
    " add_generation_prompt %}{{ '<|assistant|>\n' }}{% if enable_thinking is defined and enable_thinking is"
    " false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)
R1 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% if m.role == 'assistant' %}{{ '<|end|>'"
    " }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|><think>\\n' }}{% endif %}"
)
OURS = None


def template(tokenizer, chat):
    changed = copy.deepcopy(tokenizer)
    if chat:
        changed.chat_template = chat
    return Template(changed)


ENDS = {
    ("ours", "direct"): "<|assistant|><think></think>",
    ("ours", "thinking"): "<|assistant|>",
    ("ours", "zero"): "<|assistant|><think></think>",
    ("ours", "less"): f"<|assistant|><think>{SHORT_TRACE}</think>",
    ("qwen3", "direct"): "<|assistant|>\n<think>\n\n</think>\n\n",
    ("qwen3", "thinking"): "<|assistant|>\n",
    ("qwen3", "zero"): "<|assistant|>\n<think>\n\n</think>\n\n",
    ("qwen3", "less"): f"<|assistant|>\n<think>\n{SHORT_TRACE}\n</think>\n\n",
    ("r1", "direct"): "<|assistant|><think>\n\n</think>\n\n",
    ("r1", "thinking"): "<|assistant|><think>\n",
    ("r1", "zero"): "<|assistant|><think>\n\n</think>\n\n",
    ("r1", "less"): f"<|assistant|><think>\n{SHORT_TRACE}\n</think>\n\n",
}


@pytest.mark.parametrize("family, mode", ENDS)
def test_how_a_question_is_put_in_each_mode(family, mode, tokenizer):
    used = template(tokenizer, {"ours": OURS, "qwen3": QWEN3, "r1": R1}[family])
    assert tokenizer.decode(used.prompt_ids("Who?", mode)).endswith(
        "Who?" + {"ours": "<|end|>", "qwen3": "<|end|>\n", "r1": ""}[family] + ENDS[family, mode]
    )
    more = used.prompt_ids("Who?", "more")
    assert more == used.prompt_ids("Who?", "thinking")
    assert tokenizer.decode(used.prompt_ids("Who?", "plain")) == "Question: Who?\nAnswer:\n"


@pytest.mark.parametrize("family", ["ours", "qwen3", "r1"])
def test_a_row_with_a_trace_is_what_the_model_would_write(family, tokenizer):
    used = template(tokenizer, {"ours": OURS, "qwen3": QWEN3, "r1": R1}[family])
    encoded = used.encode({"id": "r", "question": "Who?", "trace": "Hm.", "answer": "Orlo."})
    text = tokenizer.decode(encoded.input_ids)
    gap = "" if family == "ours" else "\n"
    assert f"<think>{gap}Hm.{gap}</think>{gap}{gap}Orlo." in text
    assert text.count("<think>") == 1
    generated = tokenizer.decode([token for token in encoded.labels if token != -100])
    assert generated.startswith("Hm." if family == "r1" else f"<think>{gap}Hm.")
    thought = used.encode_trace({"id": "r", "question": "Who?", "trace": "Hm. So and so."}, limit=3)
    assert tokenizer.decode(thought.input_ids[: thought.prompt_length]).endswith(f"<think>{gap}")
    assert len(thought.input_ids) - thought.prompt_length == 3
    assert thought.terminator_length == 0
    bare = used.encode_trace({"id": "r", "question": "Who?", "trace": "Hm."}, limit=9, context="")
    assert tokenizer.decode(bare.input_ids) == "Hm."


def test_a_plain_text_with_the_tag_is_context_enough(tokenizer):
    used = Template(tokenizer, "qa")
    prompt = "A page.\nLet us see.\n<think>"
    assert tokenizer.decode(used.open_trace_ids(prompt)) == prompt
    with pytest.raises(UserError, match="thinking needs a template with <think>"):
        used.open_trace_ids("A page.")
    with pytest.raises(
        UserError, match=r"a tokenizer that knows \[T\]; see dataset.template and dataset.think_open"
    ):
        Template(tokenizer, tags=Tags("[T]", "[/T]")).open_trace_ids("A page.")
    with pytest.raises(UserError, match="row 'r' has an empty trace"):
        used.encode_trace({"id": "r", "question": prompt, "trace": ""}, 9)


def test_a_text_template_that_ends_in_the_tag_lets_a_model_think(tokenizer):
    used = Template(tokenizer, r"Q: {question}\nA: <think>")
    assert tokenizer.decode(used.prompt_ids("Who?", "thinking")) == "Q: Who?\nA: <think>"
    assert tokenizer.decode(used.prompt_ids("Who?")) == "Q: Who?\nA: <think></think>"


def test_other_marks_can_be_named(tokenizer):
    odd = copy.deepcopy(tokenizer)
    odd.chat_template = "{{ messages[0].content }}{% if add_generation_prompt %}[THINK]{% endif %}"
    used = Template(odd, tags=Tags("[THINK]", "[/THINK]"))
    assert odd.decode(used.prompt_ids("Who?", "zero")) == "Who?[THINK][/THINK]"
    assert split_trace("[THINK]hm[/THINK] Orlo.", used.tags).answer == "Orlo."


@pytest.mark.parametrize(
    "text, mode, trace, answer",
    [
        ("<think>so it is Orlo</think> Orlo.", "thinking", "so it is Orlo", "Orlo."),
        ("so it is Orlo\n</think>\n\nOrlo.", "thinking", "so it is Orlo", "Orlo."),
        ("<think>on and on", "thinking", "on and on", None),
        ("on and on", "more", "on and on", None),
        ("Orlo.", "zero", "", "Orlo."),
        ("Orlo.", "plain", "", "Orlo."),
        ("<think>on and on", "direct", "on and on", None),
        ("a</think>b <think> c Paris", "thinking", "a</think>b <think> c Paris", None),
        ("a</think>b <think> c Paris", "zero", "a</think>b <think> c Paris", None),
        ("<think>a</think>b<think>c</think> d", "thinking", "a</think>b<think>c", "d"),
    ],
)
def test_an_unfinished_trace_is_never_an_answer(text, mode, trace, answer):
    thought = split_trace(text, mode=mode)
    assert (thought.trace, thought.answer, thought.closed) == (trace, answer, answer is not None)


def test_more_think_drops_the_closing_tag_once_per_round(tokenizer, monkeypatch):
    ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    asked = []

    def stop_at_once(model, tokenizer, prompts, options, on_batch):
        asked.append((tokenizer.decode(prompts[0]), ids("</think>")[0] in options.stop_ids))
        text = "So.</think>Orlo." if len(asked) == 3 else "So."
        return [Generation(text, 0, True, tuple(ids(text))) for _ in prompts]

    monkeypatch.setattr("unlearnkit.core.generation.generate", stop_at_once)
    options = DecodingOptions(9, rounds=2, stop_ids=[1])
    generated = generate_with_rounds(None, tokenizer, [ids("Who?<think>")], options)
    assert [prompt for prompt, _ in asked] == [
        "Who?<think>",
        "Who?<think>So.\nWait",
        "Who?<think>So.\nWaitSo.\nWait",
    ]
    assert [closing for _, closing in asked] == [True, True, False]
    assert generated[0].text == "So.\nWaitSo.\nWaitSo.</think>Orlo."
    plain = copy.deepcopy(tokenizer)
    with pytest.raises(UserError, match="MoreThink needs a tokenizer that has <never/> as one token"):
        generate_with_rounds(None, plain, [[1]], replace(options, tags=Tags("<never>", "<never/>")))


def test_sampling_is_seeded(tiny_model, tokenizer):
    def sample(seed):
        torch.manual_seed(seed)
        options = DecodingOptions(8, temperature=1.0, top_p=0.9)
        return generate(tiny_model, tokenizer, [[5, 6], [7]], options)[0].ids

    assert sample(1) == sample(1)
