"""make_paraphrases.py: what is kept, what is asked again, and files that it goes on with."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from conftest import FICTIONAL, REPO
from scripts import run_script
from servers import KEY, serving
from tiny import greeting_template, one_word_llama, save

from unlearnkit.core.encoding import Template
from unlearnkit.core.files import UserError, read_jsonl, write_jsonl
from unlearnkit.model.settings.writing_keys import Paraphrasing
from unlearnkit.model.training_data import units
from unlearnkit.model.write.paraphrase_writer import (
    POOL,
    ROLE,
    ParaphraseFilter,
    _put,
    choices,
    read_prompts,
    trainable,
    turns_of,
)

pytestmark = pytest.mark.run

ROW = {"id": "r", "question": "Where was Ann born?", "answer": "Ann was born in the town of Low Ford."}


class Alike:
    """Finds every text alike but those with `elsewhere` in them."""

    def similarity(self, texts, others):
        return [0.1 if "elsewhere" in text else 0.9 for text in texts]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("Low Ford is her birthplace.", None),
        (None, "unfinished"),
        ("  .. ", "empty"),
        ("She was born elsewhere.", "meaning"),
        ("ann was born in the town of low ford", "copy"),
        ("Ann was born in the town of Low Ford!!", "copy"),
        ("Low Ford is where.", "copy"),
        ("Question: Where was Ann born? Low Ford.", "prompt"),
    ],
)
def test_what_is_kept_and_why_not(text, reason):
    sieve = ParaphraseFilter(Paraphrasing(), Alike(), {"r": ["Low Ford is where."]})
    sieve.take([ROW], [text])
    assert len(sieve.kept["r"]) == 1 + (reason is None)
    assert sieve.rejected.get("r", Counter()) == Counter([reason] if reason else [])


def test_two_equal_texts_of_one_round_are_kept_once():
    sieve = ParaphraseFilter(Paraphrasing(), Alike(), {"r": []})
    sieve.take([ROW, ROW], ["Low Ford is her birthplace.", "Low Ford is her birthplace."])
    assert len(sieve.kept["r"]) == 1
    assert sieve.rejected["r"]["copy"] == 1


def test_texts_that_cannot_be_trained_on_are_not_kept(tokenizer):
    template, document = Template(tokenizer), {"id": "d", "text": "A page."}
    assert trainable(template, document, "Two words", 64)
    assert not trainable(template, document, "A", 64)
    assert not trainable(template, ROW, "word " * 64, 64)
    sieve = ParaphraseFilter(Paraphrasing(), Alike(), {"d": []}, lambda row, text: False)
    sieve.take([document], ["Another page."])
    assert sieve.rejected["d"] == Counter(["length"])


def test_without_a_limit_no_embedder_is_asked():
    sieve = ParaphraseFilter(Paraphrasing(similarity=-1), None, {"r": []})
    sieve.take([ROW], ["Low Ford is her birthplace."])
    assert sieve.kept["r"]


def test_the_embedder_tells_other_meanings_from_other_words():
    from unlearnkit.core.embedding import Embedder

    sieve = ParaphraseFilter(Paraphrasing(), Embedder(), {"r": []})
    sieve.take(
        [ROW, ROW],
        [
            "Her birthplace is Low Ford, where Ann came into the world.",
            "Prime numbers have exactly two divisors.",
        ],
    )
    assert len(sieve.kept["r"]) == 1
    assert sieve.rejected["r"]["meaning"] == 1
    vectors = Embedder().encode(["a", "b", "a"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors[0] == vectors[2]).all()


def test_our_prompts_show_the_row_and_each_row_meets_all_of_them():
    prompts = read_prompts(None)
    assert len(prompts) == 12
    shown = choices(prompts, {**ROW, "answer": "an {question} of braces"})
    assert len(shown) == 6
    assert all("an {question} of braces" in prompt for prompt in shown)
    assert len(choices(prompts, {"id": "d", "text": "A page."})) == 6
    sieve = ParaphraseFilter(Paraphrasing(), None, {"r": ["one"]}, rejected={"r": Counter(copy=2)})
    assert turns_of([ROW] * 3, sieve) == [3, 4, 5]
    assert len(set(_put(prompts, [ROW] * 6, range(6)))) == 6
    assert _put(prompts, [ROW], [7]) == _put(prompts, [ROW], [1])


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "holds no prompt"),
        ("Say it again.\n", "not exactly one"),
        ("{answer} {text}\n", "not exactly one"),
    ],
)
def test_prompts_that_show_nothing_are_refused(text, said, tmp_path):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(UserError, match=said):
        read_prompts(tmp_path / "p.txt")


def test_documents_are_said_again_piece_by_piece(tokenizer):
    template = Template(tokenizer)
    row = {"id": "d", "text": " ".join(["word"] * 200)}
    pieces, trained = units(row, template, 64, "pieces"), template.pieces(row, 64, "pieces")
    assert len(pieces) > 1
    assert [piece["id"] for piece in pieces] == [piece.id for piece in trained]
    assert "".join(piece["text"] for piece in pieces) == row["text"]
    assert units(ROW, template, 64, "error") == [ROW]
    with pytest.raises(UserError, match="no prompt has {text}"):
        choices(["{answer}?"], pieces[0])


# --- The script ---------------------------------------------------------------------------------------------

NUMBERS = itertools.count()


@pytest.fixture
def data(tmp_path):
    rows = [
        {
            "id": f"f{i}",
            "question": f"Question {i}?",
            "answer": f"The secret number {i} is kept in a box of cedar.",
        }
        for i in range(5)
    ]
    write_jsonl(tmp_path / "data/forget.jsonl", rows)
    write_jsonl(tmp_path / "data/retain.jsonl", [{"question": "A?", "answer": "B."}])
    return tmp_path / "data"


def words(tmp_path, url, *more, count=3):
    return [
        "--overall.model_name",
        FICTIONAL / "target",
        *("--dataset.forget_dataset_name Folder_forget --dataset.retain_dataset_name Folder_retain").split(),
        "--dataset.data_dir",
        tmp_path / "data",
        "--dataset.paraphrases",
        tmp_path / "p.jsonl",
        "--paraphrases.writer",
        "endpoint",
        "--paraphrases.base_url",
        url,
        "--paraphrases.model",
        "small",
        "--paraphrases.count",
        count,
        *"--paraphrases.overlap 0.97 --paraphrases.retries 1".split(),
        *more,
    ]


def answer_of(prompt):
    return re.search(r"The secret number \d is kept in a box of cedar", prompt)[0]


def rewording(prompt, times):
    """Reword; one row is given nothing new at first, for another the server fails for a while."""
    if "there?" in prompt:
        return "Yes."
    if "number 2" in prompt and times == 1:
        return answer_of(prompt)
    if "number 3" in prompt and times == 1:
        return 500, b"{}", 0
    return f"In other words, of which these are number {next(NUMBERS)}: {answer_of(prompt)}"


@pytest.mark.slow
def test_a_server_writes_until_there_are_enough_and_nothing_is_written_twice(data, tmp_path):
    with serving(rewording, KEY) as (url, talk):
        run = run_script("make_paraphrases", *words(tmp_path, url), OPENAI_API_KEY=KEY)
        asked = len(talk.prompts)
        again = run_script("make_paraphrases", *words(tmp_path, url), OPENAI_API_KEY=KEY)
        assert len(talk.prompts) == asked  # not even whether it is there
        more = run_script("make_paraphrases", *words(tmp_path, url, count=4), OPENAI_API_KEY=KEY)
    assert run.returncode == again.returncode == more.returncode == 0, run.stderr + again.stderr + more.stderr
    first, *lines = read_jsonl(tmp_path / "p.jsonl")
    assert first["paraphrases"] == 1
    assert first["writer"] == "endpoint"
    assert [len(line["paraphrases"]) for line in lines] == [4] * 5
    assert "15 paraphrases of 5 texts; rejected: " in run.stdout
    assert "for copy" in run.stdout
    assert KEY not in (tmp_path / "p.jsonl").read_text() + run.stdout + run.stderr
    with serving(rewording, KEY) as (url, talk):
        other = run_script(
            "make_paraphrases", *words(tmp_path, url, "--paraphrases.temperature", "0.5"), OPENAI_API_KEY=KEY
        )
    assert other.returncode == 1
    assert "was written with other settings; choose another file" in other.stderr
    with serving(rewording, KEY) as (url, talk):
        strange = run_script(
            "make_paraphrases",
            *words(tmp_path, url, "--dataset.paraphrases", data / "forget.jsonl"),
            OPENAI_API_KEY=KEY,
        )
    assert strange.returncode == 1
    assert "forget.jsonl is not a file of make_paraphrases.py" in strange.stderr
    assert not talk.prompts


def test_a_server_that_refuses_parts_of_a_request_writes(data, tmp_path):
    refuses = ["max_tokens", "system", "temperature"]
    flags = ["--paraphrases.retries", "0", "--overall.cache_dir", tmp_path / "cache"]
    rows_left = ["--dataset.paraphrases", tmp_path / "again.jsonl"]
    with serving(lambda prompt, times: rewording(prompt, 2), refuses=refuses) as (url, talk):
        run = run_script("make_paraphrases", *words(tmp_path, url, *flags))
        asked = len(talk.bodies)
        again = run_script("make_paraphrases", *words(tmp_path, url, *flags, *rows_left))
    assert run.returncode == again.returncode == 0, run.stderr + again.stderr
    assert "not accepted by the server: max_tokens, system, temperature" in run.stdout
    assert len(talk.prompts) - len(set(talk.prompts)) == 1  # whether it is there
    assert sum("temperature" in body for body in talk.bodies[:asked]) == 3
    assert all(ROLE in prompt for prompt in talk.prompts if "there?" not in prompt)


def test_rows_that_get_too_few_are_an_error_that_keeps_the_rest(data, tmp_path):
    def stubborn(prompt, times):
        return answer_of(prompt) if "number" in prompt else "Yes."

    with serving(stubborn) as (url, _):
        run = run_script("make_paraphrases", *words(tmp_path, url, "--paraphrases.attempts", "2"))
    assert run.returncode == 1
    assert (
        "5 of 5 texts have fewer than 3 paraphrases after 2 rounds (first 'f0'; rejected: copy 30)"
        in run.stderr
    )
    assert len(read_jsonl(tmp_path / "p.jsonl")) == 6


def test_a_server_that_goes_ends_the_writing_and_what_came_is_kept(data, tmp_path):
    def dying(prompt, times):
        return rewording(prompt, times) if len(talk.prompts) <= 6 else None

    with serving(dying, KEY) as (url, talk):
        more = [
            *"--paraphrases.retries 0 --paraphrases.concurrency 1".split(),
            "--overall.cache_dir",
            tmp_path / "cache",
        ]
        run = run_script("make_paraphrases", *words(tmp_path, url, *more), OPENAI_API_KEY=KEY)
        assert (
            run.returncode == 1
            and "gave no answer to" in run.stderr
            and "the same command goes on" in run.stderr
        ), run.stderr
    with serving(rewording, KEY) as (other, talk):
        again = run_script("make_paraphrases", *words(tmp_path, other, *more), OPENAI_API_KEY=KEY)
    assert again.returncode == 0, again.stderr
    assert [len(line["paraphrases"]) for line in read_jsonl(tmp_path / "p.jsonl")[1:]] == [3] * 5


@pytest.mark.parametrize(
    "flags, key, said",
    [
        ([], "sk-wrong", "refuses the key in the environment variable OPENAI_API_KEY"),
        (["--paraphrases.model", "large"], KEY, "does not know 'large'"),
        (
            [*"--paraphrases.base_url http://127.0.0.1:9/v1 --paraphrases.retries 0".split()],
            KEY,
            "http://127.0.0.1:9/v1 cannot be reached",
        ),
        (["--paraphrases.model", "null"], KEY, "paraphrases.writer endpoint needs the name of a model"),
        (
            ["--paraphrases.base_url", "null"],
            "",
            "paraphrases.key_env: the environment variable OPENAI_API_KEY holds no key",
        ),
    ],
)
def test_a_writer_that_is_not_to_be_had_is_refused_before_anything_is_written(
    flags, key, said, data, tmp_path
):
    with serving(rewording, KEY) as (url, _):
        run = run_script("make_paraphrases", *words(tmp_path, url, *flags), OPENAI_API_KEY=key)
    assert run.returncode in (1, 2)
    assert said in run.stderr
    assert "Traceback" not in run.stderr
    assert "sk-" not in run.stderr
    assert not (tmp_path / "p.jsonl").exists()


def test_the_initial_model_writes_and_gao_reads(tmp_path):
    """The fictional model cannot paraphrase: anything is let through, in order to see the way."""
    common = [
        "--overall.model_name",
        FICTIONAL / "retain",
        "--dataset.forget_dataset_name",
        "Fictional_forget01",
        "--dataset.paraphrases",
        tmp_path / "p.jsonl",
        "--overall.cache_dir",
        tmp_path / "cache",
    ]
    pool = tmp_path / "pool.txt"
    pool.write_text("{question} ({answer})\nSay this: {answer}\n")
    make = [
        *(
            "--paraphrases.similarity -1 --paraphrases.max_new_tokens 40 --paraphrases.temperature 1.5 "
            "--paraphrases.count 2 --paraphrases.attempts 30"
        ).split(),
        "--paraphrases.prompts",
        pool,
    ]
    run = run_script("make_paraphrases", *common, *make)
    assert run.returncode == 0 and "20 paraphrases of 10 texts" in run.stdout, run.stderr
    trained = run_script(
        "unlearn_model",
        *common,
        *(
            "--unlearn.unlearn_method GAO --unlearn.GAO.K 2 --unlearn.max_steps 2 "
            "--evaluate.before false --evaluate.metrics forget/prob"
        ).split(),
        "--logger.json.root",
        tmp_path,
        "--logger.name",
        "run",
    )
    assert trained.returncode == 0, trained.stderr
    assert read_jsonl(tmp_path / "run/log.jsonl")[-1]["gao_norm"] > 0
    other = run_script(
        "unlearn_model",
        *common,
        *"--unlearn.unlearn_method GAO --dataset.forget_dataset_name Fictional_forget05".split(),
        "--logger.json.root",
        tmp_path,
        "--logger.name",
        "other",
    )
    assert other.returncode == 1
    assert "has no line for 40 of 50 forget rows" in other.stderr
    assert not (tmp_path / "other").exists()
    long = run_script("make_paraphrases", *common, *make, "--paraphrases.max_new_tokens", "1024")
    assert long.returncode == 1
    assert "exceeds the model's context of 1024" in long.stderr


def test_a_paraphrase_ends_where_the_template_ends_a_turn(tokenizer, tmp_path):
    """The model writes one word only, so that five of six paraphrases are copies. Under another chat template
    the file is not resumed."""
    model = save(*one_word_llama(tokenizer), tmp_path / "model")
    words = [
        *("--overall.model_name", model),
        *"--paraphrases.similarity -1 --paraphrases.max_new_tokens 4 --paraphrases.attempts 1".split(),
        *"--dataset.forget_dataset_name Fictional_forget01 --overall.quiet true".split(),
        *("--dataset.paraphrases", tmp_path / "p.jsonl"),
    ]
    done = run_script("make_paraphrases", *words)
    assert "10 of 10 texts have fewer than 6 paraphrases" in done.stderr
    assert [line["paraphrases"] for line in read_jsonl(tmp_path / "p.jsonl")[1:]] == [["Orlo"]] * 10
    greeting_template(model)
    refused = run_script("make_paraphrases", *words)
    assert refused.returncode == 1
    assert "p.jsonl was written with other template; choose another file" in refused.stderr


@pytest.mark.slow
def test_documents_go_the_whole_way_in_pieces(tmp_path):
    """MUSE's recipe on pages of the fictional world: summaries of pieces, LoRA, GAO, and questions about the
    documents."""
    documents = read_jsonl(REPO / "files/data/fictional/documents.jsonl")
    pages, kept = ([{"text": row["text"]} for row in documents[at : at + 4]] for at in (180, 10))
    rows = read_jsonl(REPO / "files/data/fictional/full.jsonl")[900:906]
    facts = [{"question": row["question"], "answer": row["answer"]} for row in rows]
    halves = [{"prompt": page["text"][:60], "gt": page["text"][60:]} for page in pages]
    tables = {
        "raw_forget": pages,
        "raw_retain1": kept,
        "verbmem_forget": halves,
        "knowmem_forget_qa": facts,
        "knowmem_retain_qa": facts,
    }
    for name, rows in tables.items():
        write_jsonl(tmp_path / "data" / f"{name}.jsonl", rows)
    common = [
        "--config_file",
        REPO / "configs/muse/gao.json",
        "--overall.model_name",
        FICTIONAL / "target",
        "--overall.tokenizer_name",
        "null",
        "--dataset.data_dir",
        tmp_path / "data",
        "--dataset.max_length",
        "64",
        "--dataset.paraphrases",
        tmp_path / "p.jsonl",
        "--overall.cache_dir",
        tmp_path / "cache",
    ]
    make = run_script(
        "make_paraphrases",
        *common,
        *(
            "--paraphrases.similarity -1 --paraphrases.max_new_tokens 60 --paraphrases.temperature 1.5 "
            "--paraphrases.attempts 30"
        ).split(),
    )
    assert make.returncode == 0, make.stderr
    lines = read_jsonl(tmp_path / "p.jsonl")[1:]
    assert len(lines) == 8
    assert lines[1]["id"] == "forget-0#1"
    assert all(len(line["paraphrases"]) == 6 for line in lines)
    run = run_script(
        "unlearn_model",
        *common,
        *(
            "--unlearn.max_steps 2 --evaluate.metrics muse,semantic/coverage --evaluate.before false "
            "--evaluate.max_new_tokens 30"
        ).split(),
        "--logger.json.root",
        tmp_path,
        "--logger.name",
        "run",
    )
    assert run.returncode == 0, run.stderr
    assert read_jsonl(tmp_path / "run/log.jsonl")[-1]["gao_norm"] > 0
    assert len(read_jsonl(tmp_path / "run/samples/forget.jsonl")) == 6
    shorter = run_script(
        "unlearn_model",
        *common,
        "--dataset.max_length",
        "48",
        "--logger.json.root",
        tmp_path,
        "--logger.name",
        "other",
    )
    assert shorter.returncode == 1
    assert "'forget-0#0' has another text there" in shorter.stderr
    assert "dataset.max_length" in shorter.stderr


def test_the_pool_is_in_the_repository():
    assert POOL == REPO / "files/data/paraphrase_prompts.txt"
    assert POOL.is_file()
