"""make_perturbed.py: what is kept, files that it goes on with, and the figures that they give."""

import re
from collections import Counter

import pytest
from conftest import FICTIONAL
from scripts import run_script
from servers import serving

from unlearnkit.core.files import UserError, read_json, read_jsonl, write_jsonl
from unlearnkit.dataset import ForgetSet, load_evaluation
from unlearnkit.model.settings.writing_keys import Paraphrasing
from unlearnkit.model.write.paraphrase_writer import read_prompts
from unlearnkit.model.write.perturbed_writer import (
    WRONG_POOL,
    KeyFactFilter,
    WrongAnswerFilter,
    names_and_numbers,
)

ROW = {
    "id": "r",
    "question": "Where was Ann born?",
    "answer": "Ann was born in the town of Low Ford in 1931.",
}
PLAIN = {"id": "r", "question": "What does Ann do?", "answer": "Ann works as a beekeeper."}


class Alike:
    """Finds every text alike but those with `elsewhere` in them."""

    def similarity(self, texts, others):
        return [0.1 if "elsewhere" in text else 0.9 for text in texts]


def reason(kind, row, text, *kept) -> str | None:
    sieve = kind(Paraphrasing(), Alike(), {"r": list(kept)})
    sieve.take([row], [text])
    assert len(sieve.kept["r"]) == len(kept) + (not sieve.rejected)
    return next(iter(sieve.rejected.get("r", Counter())), None)


@pytest.mark.parametrize(
    "row, text, fault",
    [
        (ROW, "Low Ford is where Ann came into the world, in 1931.", None),
        (ROW, "In 1931 Ann came into the world in High Ford.", "lost fact"),
        (ROW, "Ann came into the world in Low Ford.", "lost fact"),
        (ROW, "It was at Low Ford, near Thornby, in 1931 that Ann came.", "added fact"),
        (ROW, "He knows that Ann was born in the town of Low Ford in 1931.", "copy"),
        (ROW, "Low Ford 1931", "length"),
        (ROW, "Answer: Low Ford is the town of Ann since 1931.", "prompt"),
        (ROW, "I'm sorry, but I cannot help with Low Ford in 1931.", "refusal"),
        (ROW, "Low Ford saw Ann elsewhere in 1931, in this town.", "meaning"),
        (ROW, None, "unfinished"),
        (PLAIN, "Her trade is that of a beekeeper.", None),
        (PLAIN, "Ann is a baker by trade.", "lost fact"),
    ],
)
def test_paraphrases_keep_the_facts(row, text, fault):
    assert reason(KeyFactFilter, row, text) == fault


@pytest.mark.parametrize(
    "row, text, fault",
    [
        (ROW, "Ann was born in the town of Thornby in 1931.", None),
        (ROW, "Ann was born in the town of Low Ford in 1944.", None),
        (ROW, "Ann was born in the town of Low Ford in 1931!", "copy"),
        (ROW, "Ann was born in the town of Low Ford", "copy"),
        (ROW, "As they say, Ann was born in the town of Low Ford in 1931.", "copy"),
        (ROW, "Ann was born in a large town, Low Ford, in 1931.", "same fact"),
        (ROW, "Ann was born in the town of Ann.", "same fact"),
        (ROW, "In Thornby.", "length"),
        (ROW, "Thornby " * 30, "length"),
        (ROW, "Wrong option: Ann was born in the town of Thornby.", "prompt"),
        (ROW, "Question: Where was Ann born? In Thornby, in 1944.", "prompt"),
        (ROW, "The false answer would be that Ann was born in Thornby.", "prompt"),
        (ROW, 'Ann was born in the town of Thornby in 1944."', "prompt"),
        (ROW, "I'm sorry, but I cannot write a false answer here.", "refusal"),
        (ROW, "Ann was born elsewhere, in Thornby, in 1944.", "meaning"),
        (ROW, "Ann was born in the village of High Hill in 1931.", "copy"),
        (ROW, "", "empty"),
        (ROW, None, "unfinished"),
        (PLAIN, "Ann works as a baker.", None),
        (PLAIN, "Ann works as a good beekeeper.", "same fact"),
        ({"id": "r", "question": "Is Ann tall?", "answer": "Yes."}, "No.", None),
    ],
)
def test_wrong_answers_differ_in_a_fact(row, text, fault):
    assert reason(WrongAnswerFilter, row, text, "Ann was born in the village of High Hill in 1931.") == fault


def test_a_wrong_answer_is_not_the_paraphrase_again():
    row = PLAIN | {"paraphrased_answer": "Ann is an apiarist today."}
    assert reason(WrongAnswerFilter, row, "Ann is an apiarist today") == "copy"


def test_names_and_numbers_are_those_that_the_question_has_not():
    assert names_and_numbers(ROW["question"], ROW["answer"]) == {"low", "ford", "1931"}
    assert names_and_numbers("Who?", "The miller did. He and “Orlo” paid £3.") == {"orlo", "3"}
    assert names_and_numbers("Wer?", "Es war 安 mit 3 Brot.") == {"3", "brot"}


def test_our_prompts_show_question_and_answer():
    assert all("{question}" in prompt and "{answer}" in prompt for prompt in read_prompts(WRONG_POOL))


# --- The script ---------------------------------------------------------------------------------------------

pytestmark = pytest.mark.run


@pytest.fixture
def data(tmp_path):
    """A folder of the user's own rows, question and answer alone, under other names."""
    folder = tmp_path / "data"
    for name, numbers in (("forget", range(4)), ("retain", range(4, 10))):
        rows = [
            {"prompt": f"What is in box {n}?", "response": f"Box {n} holds {n + 20} coins."} for n in numbers
        ]
        write_jsonl(folder / f"{name}.jsonl", rows)
    return folder


def writing(prompt: str, times: int) -> str:
    """Right or wrong, as asked for."""
    if "there?" in prompt:
        return "Yes."
    box, coins = re.search(r"Box (\d) holds (\d+) coins", prompt).groups()
    if re.search("false|wrong", prompt, re.IGNORECASE):
        return f"Box {box} holds {int(coins) * 10 + times + len(prompt)} coins."
    return f"There are {coins} coins inside of number {box}."


def words(data, tmp_path, *more):
    return [
        *("--overall.model_name", FICTIONAL / "target", "--dataset.data_dir", data),
        *("--dataset.forget_dataset_name Folder_forget --dataset.retain_dataset_name Folder_retain").split(),
        *("--dataset.columns", "question=prompt", "answer=response"),
        *("--overall.cache_dir", tmp_path / "cache", "--overall.quiet", "true"),
        *more,
    ]


def from_server(url, *more):
    return [
        *("--paraphrases.writer", "endpoint", "--paraphrases.base_url", url, "--paraphrases.model", "small"),
        *"--paraphrases.similarity -1 --paraphrases.count 2 --paraphrases.retries 0".split(),
        *more,
    ]


def test_own_rows_get_a_truth_ratio_and_forget_quality(data, tmp_path, tiny_model_folder):
    """And without them a utility of the parts that exist."""
    measured = lambda name, *more: run_script(
        "evaluate_model",
        *words(data, tmp_path, "--logger.json.root", tmp_path, "--logger.name", name),
        *("--overall.model_name", tiny_model_folder, "--evaluate.max_new_tokens", "4", *more),
    )
    bare = measured("bare")
    assert bare.returncode == 0, bare.stderr
    metrics, detail = (read_json(tmp_path / f"bare/{name}.json") for name in ("metrics", "metrics_detail"))
    assert metrics["model_utility"] is None and "partial_utility" in detail["model_utility"]["reason"]
    parts = [metrics["retain/prob"], metrics["retain/rougeL"]]
    assert metrics["partial_utility"] == pytest.approx(
        2 / sum(1 / part for part in parts) if all(parts) else 0
    )
    assert detail["partial_utility"]["reason"].startswith(
        "mean of retain/prob, retain/rougeL; without retain/tr"
    )
    with serving(writing) as (url, talk):
        first = run_script("make_perturbed", *words(data, tmp_path, *from_server(url)), OPENAI_API_KEY="k")
        asked = len(talk.prompts)
        again = run_script("make_perturbed", *words(data, tmp_path, *from_server(url)), OPENAI_API_KEY="k")
        assert len(talk.prompts) == asked
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "forget_eval.jsonl: 4 paraphrased and 8 perturbed answers of 4 forget rows" in first.stdout
    assert "retain_eval.jsonl: 6 paraphrased and 12 perturbed answers of 6 retain rows" in first.stdout
    head, *lines = read_jsonl(data / "forget_eval.jsonl")
    assert head["perturbed"] == 1 and len(lines) == 4
    assert measured("retain").returncode == 0
    run = measured("target", "--evaluate.retain_results", tmp_path / "retain")
    assert run.returncode == 0, run.stderr
    metrics = read_json(tmp_path / "target/metrics.json")
    assert metrics["forget_quality"] == 1.0  # the same model
    assert metrics["retain/truth_ratio"] is not None
    write_jsonl(data / "forget.jsonl", [{"prompt": "What is in box 0?", "response": "Box 0 holds nothing."}])
    other = measured("other")
    assert other.returncode == 1
    assert "forget_eval.jsonl: was written for other rows: 'forget-0' has another" in other.stderr


def test_a_file_is_sealed_to_its_rows_and_to_how_it_was_written(data, tmp_path):
    with serving(writing) as (url, _):
        run = lambda *more: run_script(
            "make_perturbed", *words(data, tmp_path, *from_server(url, *more)), OPENAI_API_KEY="k"
        )
        assert run("--dataset.forget_ratio", "2", "--evaluate.rows", "3").returncode == 0
        two = read_jsonl(data / "forget_eval.jsonl")
        assert len(two) == 3 and len(read_jsonl(data / "retain_eval.jsonl")) == 4
        hotter = run("--paraphrases.temperature", "1.5")
        assert hotter.returncode == 1 and "forget_eval.jsonl was written with other settings" in hotter.stderr
        assert run().returncode == 0
        whole = read_jsonl(data / "forget_eval.jsonl")
        assert len(whole) == 5 and all(line in whole for line in two)
        assert run("--dataset.forget_ratio", "2").returncode == 0
        assert read_jsonl(data / "forget_eval.jsonl") == whole
        (data / "retain_eval.jsonl").write_text('{"prompt": "A?", "response": "B."}\n')
        kept = run()
    assert kept.returncode == 0
    assert "retain_eval.jsonl was not written by make_perturbed.py and is left as it is" in kept.stdout


def test_rows_without_enough_are_named_and_what_there_is_is_kept(data, tmp_path):
    stubborn = lambda prompt, times: (
        "I cannot help with that." if "box 2" in prompt else writing(prompt, times)
    )
    with serving(stubborn) as (url, _):
        more = from_server(url, "--paraphrases.attempts", "1")
        run = run_script("make_perturbed", *words(data, tmp_path, *more), OPENAI_API_KEY="k")
    assert run.returncode == 1
    assert (
        "1 of 10 rows lack a paraphrased or a perturbed answer after 1 rounds (first 'forget-2')"
        in run.stderr
    )
    assert "(1 rows have fewer than 2); rejected: 3 for refusal" in run.stdout
    assert len(read_jsonl(data / "forget_eval.jsonl")) == 5


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--dataset.forget_dataset_name", "Fictional_forget10"], "Fictional_forget10 are not your own rows"),
        (["--dataset.data_dir", "null"], "dataset.data_dir"),
    ],
)
def test_what_it_cannot_start_with(flags, said, data, tmp_path):
    run = run_script("make_perturbed", *words(data, tmp_path, *flags))
    assert run.returncode == 2
    assert said in run.stderr


def test_paraphrases_are_written_for_the_rows_that_are_forgotten(data, tmp_path):
    """A file keeps the lines of rows that dataset.forget_ratio leaves out."""
    with serving(writing) as (url, _):
        file = ["--dataset.paraphrases", tmp_path / "p.jsonl", "--paraphrases.attempts", "1"]
        run = lambda *more: run_script(
            "make_paraphrases", *words(data, tmp_path, *from_server(url), *file, *more), OPENAI_API_KEY="k"
        )
        few = run("--dataset.forget_ratio", "3")
        three = read_jsonl(tmp_path / "p.jsonl")[1:]
        assert len(three) == 3, few.stderr
        run()
        assert len(read_jsonl(tmp_path / "p.jsonl")) == 5
        run("--dataset.forget_ratio", "3")
        assert len(read_jsonl(tmp_path / "p.jsonl")) == 5
    write_jsonl(data / "forget.jsonl", [{"prompt": "Another?", "response": "Row 1."}])
    with serving(writing) as (url, _):
        assert "was written for other rows" in run().stderr


# --- Targets ------------------------------------------------------------------------------------------------


def test_fine_tuning_without_the_forget_rows_is_warned_of(data, tmp_path, tiny_model_folder):
    tuned = lambda *more: run_script(
        "finetune_model",
        *words(data, tmp_path, "--overall.model_name", tiny_model_folder, "--overall.logger", "none"),
        *"--unlearn.max_steps 1 --evaluate.metrics retain/prob".split(),
        *more,
    )
    warning = (
        "4 of 4 rows to forget (Folder_forget) are not in Folder_retain, which the model is fine-tuned on"
    )
    retain = tuned()
    assert retain.returncode == 0, retain.stderr
    assert warning in retain.stderr and "(Folder_full)" in retain.stderr
    unnamed = tuned("--dataset.forget_dataset_name", "null")
    assert unnamed.returncode == 2 and "its rows are named Folder_forget and Folder_retain" in unnamed.stderr
    whole = tuned("--dataset.retain_dataset_name", "Folder_full")
    assert whole.returncode == 0 and "rows to forget" not in whole.stderr


def test_some_rows_without_wrong_answers_are_counted(data, tmp_path):
    """The reason of the null names how many rows lack what, and the script that writes it."""
    with serving(writing) as (url, _):
        few = words(data, tmp_path, *from_server(url), "--dataset.forget_ratio", "3")
        assert run_script("make_perturbed", *few, OPENAI_API_KEY="k").returncode == 0
    run = run_script(
        "evaluate_model",
        *words(data, tmp_path, "--logger.json.root", tmp_path, "--logger.name", "run"),
        *"--evaluate.metrics forget_quality --overall.quiet true".split(),
    )
    assert run.returncode == 0, run.stderr
    reason = read_json(tmp_path / "run/metrics_detail.json")["forget_quality"]["reason"]
    assert "1 of 4 forget rows have no 'paraphrased_answer' (make_perturbed.py writes them" in reason


@pytest.mark.parametrize(
    "line, said",
    [
        ({"id": "forget-0"}, "line 2: 'source' is missing"),
        ({"id": 3, "source": "x"}, "line 2: 'id' must be a text"),
        ({"id": "forget-0", "source": "x", "perturbed_answer": "one"}, "line 2: 'perturbed_answer'"),
        ({"id": "forget-0", "source": "x", "perturbed_answer": []}, "line 2: 'perturbed_answer'"),
        ({"id": "forget-0", "source": "x", "paraphrased_answer": None}, "line 2: 'paraphrased_answer'"),
        ({"id": "forget-0", "source": "x", "rejected": {"a": {"b": "c"}}}, "line 2: 'rejected'"),
    ],
)
def test_a_broken_line_is_named(line, said, data):
    write_jsonl(data / "forget_eval.jsonl", [{"perturbed": 1}, line])
    with pytest.raises(UserError, match=said):
        load_evaluation(
            ForgetSet("Folder_forget", data, columns={"question": "prompt", "answer": "response"})
        )
    write_jsonl(data / "forget_eval.jsonl", [{"perturbed": 2}])
    with pytest.raises(UserError, match=r"\(version 2, this one is 1\)"):
        load_evaluation(
            ForgetSet("Folder_forget", data, columns={"question": "prompt", "answer": "response"})
        )
