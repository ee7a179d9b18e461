import copy

import pytest
from conftest import GOLDEN, SHARED_DATA
from transformers import AutoTokenizer

from core.encoding import Template, pad_rows
from core.files import UserError

ROW = {"id": "r1", "question": "Who taught Abelin Greaves?", "answer": "That was the miller Orlo."}


@pytest.fixture(scope="module")
def plain_tokenizer():
    """Adds a BOS, has no pad token, and a chat template of its own."""
    return AutoTokenizer.from_pretrained(GOLDEN / "metrics" / "tokenizer")


def test_chat_row(tokenizer):
    encoded = Template(tokenizer).encode(ROW)
    assert (
        tokenizer.decode(encoded.input_ids)
        == "<|user|>Who taught Abelin Greaves?<|end|><|assistant|><think></think>That was the miller"
        " Orlo.<|end|>"
    )
    assert encoded.terminator_length == 1
    labelled = [token for token in encoded.labels if token != -100]
    assert tokenizer.decode(labelled) == "That was the miller Orlo.<|end|>"


def test_a_trace_stands_between_the_tags_and_is_labelled(tokenizer):
    encoded = Template(tokenizer).encode({**ROW, "trace": "Hm."})
    assert tokenizer.decode(encoded.input_ids[: encoded.prompt_length]).endswith("<|assistant|>")
    assert (
        tokenizer.decode(encoded.input_ids[encoded.prompt_length :])
        == "<think>Hm.</think>That was the miller Orlo.<|end|>"
    )


def test_qa_template_byte_for_byte(plain_tokenizer):
    encoded = Template(plain_tokenizer, "qa").encode(ROW)
    assert (
        plain_tokenizer.decode(encoded.input_ids)
        == "<s>Question: Who taught Abelin Greaves?\nAnswer:\nThat was the miller Orlo.</s>"
    )
    assert (
        Template(plain_tokenizer, r"Q {question}\nA ").prompt_ids("x?")
        == plain_tokenizer("Q x?\nA ")["input_ids"]
    )


def test_document_labels_every_token_but_the_first(plain_tokenizer):
    encoded = Template(plain_tokenizer).encode({"id": "d", "text": "A page on nothing."})
    assert encoded.prompt_length == 1
    assert encoded.input_ids[0] == plain_tokenizer.bos_token_id
    assert encoded.input_ids[-1] == plain_tokenizer.eos_token_id


def test_prompt_is_the_same_with_and_without_answer(tokenizer):
    template = Template(tokenizer)
    encoded = template.encode(ROW)
    assert encoded.input_ids[: encoded.prompt_length] == template.prompt_ids(ROW["question"])


@pytest.mark.parametrize(
    "row, limit, told",
    [({**ROW, "answer": ""}, 512, "row 'r1' has no answer token"), (ROW, 10, "row 'r1' has 1")],
)
def test_rows_that_cannot_be_scored_are_named(tokenizer, row, limit, told):
    with pytest.raises(UserError, match=told):
        Template(tokenizer).encode(row, limit)


def test_thinking_needs_a_template_that_knows_it(plain_tokenizer, tokenizer):
    for template in (Template(plain_tokenizer), Template(tokenizer, "qa")):
        with pytest.raises(UserError, match="thinking needs"):
            template.prompt_ids("Who?", "thinking")


def test_a_template_that_opens_the_thought_gets_no_second_tag(tokenizer):
    opening = copy.deepcopy(tokenizer)
    opening.chat_template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|><think>' }}{% endif %}"
    )
    encoded = Template(opening).encode({**ROW, "trace": "Hm."})
    assert tokenizer.decode(encoded.input_ids).count("<think>") == 1


def test_a_templates_date_is_always_the_same(tokenizer):
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = (
        "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}" + dated.chat_template
    )
    assert tokenizer.decode(Template(dated).prompt_ids("Q?")).startswith("26 Jul 2024")


@pytest.mark.skipif(not (SHARED_DATA / "stories260k").is_dir(), reason="the real tiny Llama is not here")
def test_a_tokenizer_that_marks_word_starts_meets_no_stray_mark():
    llama = AutoTokenizer.from_pretrained(SHARED_DATA / "stories260k/hf")
    encoded = Template(llama).encode({"id": "c", "prompt": "Which? Answer:", "answer": "A"})
    assert encoded.input_ids[:-1] == llama("Which? Answer: A")["input_ids"]


def test_template_without_a_question_is_refused(tokenizer):
    with pytest.raises(UserError, match="{question}"):
        Template(tokenizer, "no place for it")


def test_padding_and_masks_come_from_lengths(tokenizer):
    template = Template(tokenizer)
    rows = [template.encode(ROW), template.encode({**ROW, "id": "r2", "answer": "Orlo."})]
    part = pad_rows(list(enumerate(rows)), pad_id=tokenizer.eos_token_id)
    assert part["attention_mask"].sum(-1).tolist() == [len(row.input_ids) for row in rows]
    assert part["input_ids"][1, -1] == tokenizer.eos_token_id
    assert part["labels"][1, -1] == -100
    assert part["index"].tolist() == [0, 1]
