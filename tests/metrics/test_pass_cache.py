"""Results of single texts on disk: nothing is computed twice, and nothing broken is used."""

import json

import numpy as np
import pytest

from unlearnkit.core.encoding import Template
from unlearnkit.core.generation import Generation
from unlearnkit.metrics.measure import count_texts, measure
from unlearnkit.metrics.pass_cache import PassCache
from unlearnkit.metrics.runner import EvalOptions, EvalRunner, RunnerHooks
from unlearnkit.metrics.spec import RUN, AnswerScore, Decoding, Generations, Samples, Sampling, select

ROWS = {
    "forget": [
        {"id": f"f{k}", "question": f"Who taught {name}?", "answer": f"The miller {name}."}
        for k, name in enumerate(["Orlo", "Abelin", "Tamsin", "Jory"])
    ],
}
ROWS["holdout"] = [{**row, "id": f"h{row['id']}", "answer": "Nobody did."} for row in ROWS["forget"]]
KEYS = select(["forget/prob", "forget/rougeL", "mia/loss/auc", "forget/mia_gradnorm"])


class Counting:
    """A runner's model, the number of its forwards, and the texts that were reported as done."""

    def __init__(self, model, tokenizer, folder):
        self.forwards, self.done = 0, []
        self.handle = model.register_forward_hook(self.count)
        hooks = RunnerHooks(self.done.append, cache_of=lambda model: PassCache(folder))
        options = EvalOptions(256, 6, 4096, Decoding("zero"))
        self.runner = EvalRunner(model, Template(tokenizer), options, hooks)

    def count(self, *_):
        self.forwards += 1

    def measured(self, keys=KEYS, rows=ROWS):
        found = {key: value.value for key, value in measure(keys, rows, self.runner).values.items()}
        assert sum(self.done) == count_texts(keys, rows, Decoding("zero"))
        self.handle.remove()
        return found


def test_a_second_evaluation_runs_no_model_and_has_the_same_values(tiny_model, tokenizer, tmp_path):
    first = Counting(tiny_model, tokenizer, tmp_path)
    expected = first.measured()
    again = Counting(tiny_model, tokenizer, tmp_path)
    assert again.measured() == expected
    assert (first.forwards > 0, again.forwards) == (True, 0)


def test_new_metrics_and_rows_compute_only_what_is_new(tiny_model, tokenizer, tmp_path):
    few = {name: table[:2] for name, table in ROWS.items()}
    Counting(tiny_model, tokenizer, tmp_path).measured(select(["forget/prob"]), few)
    before = (tmp_path / "passes-0.jsonl").read_text()
    Counting(tiny_model, tokenizer, tmp_path).measured(select(["forget/prob"]))
    added = (tmp_path / "passes-0.jsonl").read_text().removeprefix(before)
    assert added.count("logp") == 2


def test_an_interrupted_evaluation_resumes_where_it_was(tiny_model, tokenizer, tmp_path):
    expected = Counting(tiny_model, tokenizer, None).measured()
    broken = Counting(tiny_model, tokenizer, tmp_path)
    own, broken.runner.options = tiny_model.generate, EvalOptions(256, 6, 30, Decoding("zero"), 60)

    def killed(**inputs):
        tiny_model.generate = killed_later
        return own(**inputs)

    def killed_later(**inputs):
        raise KeyboardInterrupt

    tiny_model.generate = killed
    with pytest.raises(KeyboardInterrupt):
        measure(KEYS, ROWS, broken.runner)
    broken.handle.remove()
    tiny_model.generate = own
    path = tmp_path / "passes-0.jsonl"
    whole = path.read_text()
    assert whole.count("logp") == 8 and whole.count("ended") == 1
    path.write_text(whole[:-9])  # the last line was cut
    resumed = Counting(tiny_model, tokenizer, tmp_path)
    assert resumed.measured() == pytest.approx(expected, abs=1e-6)
    assert path.read_text().count("logp") == 8


def test_a_changed_line_is_measured_again_and_said(tiny_model, tokenizer, tmp_path, caplog):
    expected = Counting(tiny_model, tokenizer, tmp_path).measured()
    path = tmp_path / "passes-0.jsonl"
    lines = path.read_text().splitlines()
    place = next(k for k, line in enumerate(lines) if "logp" in line)
    lines[place] = lines[place].replace('"logp": [-', '"logp": [-1')
    path.write_text("\n".join([*lines, "no JSON", "[1, 2]", "3"]))
    assert Counting(tiny_model, tokenizer, tmp_path).measured() == pytest.approx(expected, abs=1e-6)
    assert "4 lines are not as they were written" in caplog.text


def test_equal_prompts_of_two_needs_are_asked_once(tiny_model, tokenizer):
    """With mode zero the answers after thought are those without."""
    runner = Counting(tiny_model, tokenizer, None)
    direct = runner.runner.generations(ROWS["forget"], Generations("forget"))
    forwards = runner.forwards
    assert runner.runner.generations(ROWS["forget"], Generations("forget", mode=RUN)) == direct
    assert runner.forwards == forwards


def test_sampled_texts_depend_on_their_seed_and_not_on_their_batch(tiny_model, tokenizer, tmp_path):
    def texts(seed: int, batch_tokens: int = 4096, rows=ROWS["forget"]):
        options = EvalOptions(
            256, 6, batch_tokens, Decoding(temperature=1.0), sampling=Sampling(count=2, seed=seed)
        )
        runner = EvalRunner(tiny_model, Template(tokenizer), options)
        written = runner.generations(rows, Generations("forget")), runner.samples(rows, Samples("forget"))
        return list(written)

    one = texts(0)
    assert texts(0, batch_tokens=1) == one != texts(1)
    assert texts(0, rows=ROWS["forget"][::-1]) == [part[::-1] for part in one]
    assert one[1][0][0] != one[1][0][1], "two samples of a question"


def test_scores_without_moments_do_not_serve_a_metric_that_needs_them():
    cache = PassCache()
    plain = AnswerScore(np.array([-1.0, -2.0]), np.array([True, False]), 1)
    full = AnswerScore(plain.logp, plain.hit, 1, np.array([-3.0, -1.0]), np.array([0.5, 0.25]))
    cache.add_scores({"a": plain})
    assert cache.score("a", moments=True) is None
    cache.add_scores({"a": full})
    for moments in (False, True):
        found = cache.score("a", moments)
        assert found.variance.tolist() == [0.5, 0.25] and found.hit.tolist() == [True, False]


def test_values_that_are_no_numbers_are_not_kept(tmp_path):
    cache = PassCache(tmp_path)
    cache.add_scores({"a": AnswerScore(np.array([float("nan")]), np.array([False]), 0)})
    cache.add_numbers({"b": float("inf"), "c": 2.0})
    cache.add_generations({"d": Generation("é\n", 2, True, (3, 4))})
    kept = PassCache(tmp_path)
    assert set(kept.found) == {"c", "d"}
    assert kept.generation("d") == Generation("é\n", 2, True, (3, 4))


def test_each_process_writes_its_own_file_and_reads_all(tmp_path):
    PassCache(tmp_path, "0").add_numbers({"a": 1.0})
    PassCache(tmp_path, "1").add_numbers({"b": 2.0})
    assert PassCache(tmp_path, "0").found == {"a": 1.0, "b": 2.0}
    assert json.loads((tmp_path / "passes-1.jsonl").read_text())[:2] == ["b", 2.0]


def test_a_folder_that_cannot_be_written_costs_no_evaluation(tiny_model, tokenizer, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    keys, rows = select(["forget/prob"]), {"forget": ROWS["forget"]}
    found = Counting(tiny_model, tokenizer, tmp_path / "file" / "folder").measured(keys, rows)
    assert found == Counting(tiny_model, tokenizer, None).measured(keys, rows)
    assert "cannot be written (Not a directory)" in caplog.text
