import copy

import pytest
from conftest import GOLDEN, SHARED_DATA
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from unlearnkit.core.encoding import Template, pad_rows
from unlearnkit.core.files import UserError

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
    "row, limit, message",
    [({**ROW, "answer": ""}, 512, "row 'r1' has no answer token"), (ROW, 10, "row 'r1' has 1")],
)
def test_rows_that_cannot_be_scored_are_named(tokenizer, row, limit, message):
    with pytest.raises(UserError, match=message):
        Template(tokenizer).encode(row, limit)


def test_thinking_needs_a_template_that_knows_it(plain_tokenizer, tokenizer):
    for template in (Template(plain_tokenizer), Template(tokenizer, "qa")):
        with pytest.raises(UserError, match="thinking needs"):
            template.prompt_ids("Who?", "thinking")


def test_a_template_that_opens_the_trace_gets_no_second_tag(tokenizer):
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


# --- Tokenizers with habits ---------------------------------------------------------------------------------


def with_habit(tokenizer, single: str):
    """The tokenizer with another post-processor, in which EOS stands for its own."""
    changed = copy.deepcopy(tokenizer)
    ends = {token: changed.convert_tokens_to_ids(token) for token in single.split() if token != "$A"}
    changed.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=list(ends.items())
    )
    return changed


@pytest.mark.parametrize("single", ["$A </s>", "<s> $A </s>", "<s> <s> $A"])
@pytest.mark.parametrize(
    "row",
    [ROW, {"id": "p", "prompt": "Once upon", "answer": "a time."}, {"id": "d", "text": "A page on nothing."}],
    ids=["question", "prompt", "document"],
)
@pytest.mark.parametrize("template", ["qa", "Q {question} A"])
def test_what_a_tokenizer_appends_by_itself_is_in_no_row(single, row, template, plain_tokenizer):
    """And a BOS stands once."""
    plain = with_habit(plain_tokenizer, "<s> $A" if "<s>" in single else "$A")
    habit = with_habit(plain_tokenizer, single)
    ours, theirs = (Template(tokenizer, template).encode(row) for tokenizer in (habit, plain))
    assert ours == theirs
    assert ours.input_ids.count(plain_tokenizer.eos_token_id) == 1


def test_a_template_that_writes_its_own_bos_gets_no_second_one(plain_tokenizer):
    own = Template(plain_tokenizer, "<s>Q {question} A ").prompt_ids("x?")
    assert own.count(plain_tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    "clock, date",
    [
        ("{{ strftime_now('%d %B %Y') }}", "26 July 2024"),
        ("{% set form = '%d.%m.%y' %}{{ strftime_now(form) }}", "26.07.24"),
        ('{% if strftime_now is defined %}{{ strftime_now("%d %b %Y") }}{% endif %}', "26 Jul 2024"),
        ("{{ date_string }}", "26 Jul 2024"),
        ("{{ strftime_now ('%d') }}", "26"),
        ("{{ (strftime_now)('%d') }}", "26"),
        ("{{ strftime_now(format='%Y')|int - 1 }}", "2023"),
        ("{% set now = strftime_now %}{{ now('%Y') }}", "2024"),
        ("{% macro day() %}{{ strftime_now('%A, %j') }}{% endmacro %}{{ day() }}", "Friday, 208"),
        ("{{ strftime_now('%d' ~ ' %b') }}", "26 Jul"),
        ("{{ strftime_now('%d'+'x') }}", "26x"),
        ("{{ strftime_now('%d o\\'clock') }}", "26 o'clock"),
        ("{{ strftime_now('%H:%M:%S') }}", "00:00:00"),
        ("{{ \"strftime_now('%d')\" }}", "strftime_now('%d')"),
    ],
)
def test_rows_are_the_same_on_every_day(clock, date, tokenizer):
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = f"Today is {clock}.{tokenizer.chat_template}"
    prompt = tokenizer.decode(Template(dated).prompt_ids("Who?"))
    assert prompt == f"Today is {date}.{tokenizer.decode(Template(tokenizer).prompt_ids('Who?'))}"


LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %} "
    "{{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
TWO_ENDS = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% if m['role'] == 'assistant' %}"
    "<|end|> {{ eos_token }}{% endif %}{% endfor %}"
)


def test_an_answer_ends_at_special_tokens_and_never_at_ordinary_text(plain_tokenizer, tokenizer):
    """Llama 2 ends a turn with a blank and EOS: the blank ends nothing."""
    spaced = copy.deepcopy(plain_tokenizer)
    spaced.chat_template = LLAMA_2
    template = Template(spaced, "chat")
    assert len(template.terminator) > 1
    assert template.stop_ids == [spaced.eos_token_id]
    twice = copy.deepcopy(plain_tokenizer)
    twice.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    twice.chat_template = TWO_ENDS
    ends = [twice.convert_tokens_to_ids("<|end|>"), twice.eos_token_id]
    assert Template(twice, "chat").stop_ids == ends
    assert Template(tokenizer).stop_ids == Template(tokenizer).terminator


def test_a_template_that_renders_otherwise_has_another_fingerprint(tokenizer):
    other = copy.deepcopy(tokenizer)
    other.chat_template = f"System. {tokenizer.chat_template}"
    prints = [
        Template(tokenizer).fingerprint,
        Template(other).fingerprint,
        Template(tokenizer, "qa").fingerprint,
    ]
    assert len(set(prints)) == 3
    assert Template(copy.deepcopy(tokenizer)).fingerprint == prints[0]


# --- Long documents -----------------------------------------------------------------------------------------


def document(tokenizer, tokens: int) -> dict:
    """A document of about so many tokens."""
    words, text = iter(f"word{number}" for number in range(10**6)), ""
    while len(tokenizer(text, add_special_tokens=False)["input_ids"]) < tokens:
        text += f" {next(words)}"
    return {"id": "d", "text": text.strip()}


@pytest.mark.parametrize("tokens", [40, 64, 65, 66, 67, 90, 128, 129, 200])
@pytest.mark.parametrize("bos", [True, False])
def test_the_pieces_of_a_document_joined_are_the_document(tokens, bos, plain_tokenizer):
    tokenizer = with_habit(plain_tokenizer, "<s> $A" if bos else "$A")
    template, row = Template(tokenizer), document(tokenizer, tokens)
    whole = template.encode(row, 10**6)
    pieces = template.pieces(row, 32, "pieces")
    joined = [token for piece in pieces for token in piece.input_ids[int(bos) :]]
    assert joined == whole.input_ids[int(bos) :]
    assert [t for piece in pieces for t in piece.input_ids[piece.prompt_length :]] == whole.input_ids[1:]
    assert all(piece.input_ids[0] == tokenizer.bos_token_id for piece in pieces) == bos
    assert all(3 <= len(piece.input_ids) <= 32 for piece in pieces)
    assert [piece.terminator_length for piece in pieces] == [0] * (len(pieces) - 1) + [1]
    assert {tuple(piece.labels[piece.prompt_length :]) for piece in pieces} == {
        tuple(piece.input_ids[piece.prompt_length :]) for piece in pieces
    }


def test_of_templates_stored_by_name_the_default_is_taken_or_the_first(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    plain, tools = (
        tokenizer.chat_template,
        "{{ 'tools' }}{% for m in messages %}{{ m['content'] }}{% endfor %}",
    )
    whole = Template(tokenizer).prompt_ids("Who?")
    tokenizer.chat_template = {"tools": tools, "default": plain}
    assert Template(tokenizer).prompt_ids("Who?") == whole
    tokenizer.chat_template = {"tools": tools, "other": plain}
    assert Template(tokenizer).prompt_text("Who?", "plain") and "tools" in Template(tokenizer)._template


@pytest.mark.parametrize(
    "text, message",
    [
        ("{% for m in messages %}", "TemplateSyntaxError"),
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ messages[9]['content'] + 1 }}", "Error"),
        ("{% for i in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}", "TimeoutError"),
    ],
)
def test_a_chat_template_that_fails_is_named_with_the_way_out(text, message, tokenizer, monkeypatch):
    monkeypatch.setattr("unlearnkit.core.encoding.TEMPLATE_SECONDS", 0.1)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = {"default": text}
    with pytest.raises(UserError, match=f"chat template 'default' fails .*{message}.*dataset.template qa"):
        Template(tokenizer)
    assert Template(tokenizer, "qa").prompt_ids("Who?")
