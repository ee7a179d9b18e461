"""The harness's tasks on a model that says what the test tells it to."""

import random
import socket

import numpy as np
import pytest
import torch
from conftest import REPO
from tiny import random_llama
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from unlearnkit.core.encoding import Template
from unlearnkit.core.files import UserError
from unlearnkit.metrics.lm_eval import (
    InMemoryModel,
    ModelOptions,
    TaskOptions,
    Tasks,
    costs_of,
    restoring_state,
    run_task,
)
from unlearnkit.model.benchmarks.suites import TASKS, known_tasks, suite_names, task_info, tasks_of

QUIET = lambda done, total: None
YES = "<think>It is Orlo. Question: is it? Orlo.</think>"


class Scripted(LlamaForCausalLM):
    """Writes its scripts, one to each row of a batch, and then the end of the turn, whatever it reads."""

    scripts: list[list[int]] = []
    end = 0

    def forward(self, input_ids, past_key_values, **_):
        count, length = input_ids.shape
        read = past_key_values.get_seq_length()
        if not read:  # a batch of whole prompts
            self.prompt = length
        # The cache holds the number of each row's script: rows may leave the batch.
        numbers = past_key_values.layers[0].keys[:, 0, 0, 0] if read else torch.arange(count)
        kept = numbers[:, None, None, None].expand(count, 1, length, 1)
        past_key_values.update(kept, kept, 0)
        self.step = step = read + length - self.prompt
        logits = torch.zeros(count, length, self.config.vocab_size)
        for row, number in enumerate(numbers.tolist()):
            script = self.scripts[number % len(self.scripts)]
            logits[row, -1, script[step] if step < len(script) else self.end] = 9.0
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)


def scripted(tokenizer, *texts: str) -> Scripted:
    model = Scripted(random_llama(tokenizer).config).eval()
    model.generation_config.eos_token_id = model.end = tokenizer.eos_token_id
    model.scripts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return model


@pytest.fixture(scope="module")
def tasks():
    return Tasks(TASKS, {"data_dir": None, "mode": "thinking"})


def in_memory(model, tokenizer, mode="thinking", batch_tokens=4096):
    return InMemoryModel(model, tokenizer, ModelOptions(Template(tokenizer), mode, batch_tokens), QUIET)


def figures(model, tokenizer, tasks, name, batch_tokens=4096, **conduct):
    with restoring_state(model, tokenizer):
        lm = in_memory(model, tokenizer, batch_tokens=batch_tokens)
        result = run_task(lm, tasks.load(name), name, TaskOptions(**{"chat": True, "bootstrap": 0} | conduct))
    return {key.partition("/")[2]: score.value for key, score in result.scores.items()}, result.samples


def first_answer(tasks, name="fictional_arithmetic") -> str:
    return next(iter(tasks.load(name)["tasks"].values())).eval_docs[0]["target"]


def test_every_task_of_every_suite_is_in_the_harness(tasks):
    names = {name for suite in suite_names() for name in tasks_of([suite])}
    assert names <= set(known_tasks())
    for name in known_tasks():
        assert name in tasks.manager_of(name, task_info(name).folder).task_index, name


def test_each_file_of_this_project_is_a_task_with_described_metrics():
    ours = Tasks(TASKS, {})
    for path in sorted(TASKS.glob("*.yaml")):
        declared = ours.declared(path.stem)
        assert declared["task"] == path.stem
        assert declared["num_fewshot"] == 0
        for metric in declared["metric_list"]:
            assert {"metric", "aggregation", "higher_is_better"} <= set(metric), path
        if declared["output_type"] == "generate_until":
            assert declared["generation_kwargs"]["until"] == [], "stop texts would stop inside a thought"
            assert declared["generation_kwargs"]["max_gen_toks"] > 0


def test_no_folder_of_ours_shadows_the_package():
    assert not list((REPO / "lm-evaluation-harness").rglob("lm_eval"))


@pytest.mark.parametrize(
    "text, expected",
    [
        (YES + "{}", {"acc": 1, "closed": 1, "acc_as_published": 1}),
        ("<think>It is {}.", {"acc": 0, "closed": 0, "acc_as_published": 0}),
        ("{}", {"acc": 0, "closed": 0, "acc_as_published": 1}),
        ("<think>a</think>5<think>b</think>{}", {"acc": 1, "closed": 1, "acc_as_published": 1}),
    ],
)
def test_an_answer_is_what_follows_the_last_closed_trace(tokenizer, tasks, text, expected):
    model = scripted(tokenizer, text.format(first_answer(tasks)))
    found, _ = figures(model, tokenizer, tasks, "fictional_arithmetic", limit=1)
    assert {key.partition("[")[0]: value for key, value in found.items()} == {
        **expected,
        "pass_at_k": expected["acc"],
    }


def test_a_closing_tag_that_is_a_special_token_is_kept(tokenizer, tasks):
    import copy

    special = copy.deepcopy(tokenizer)
    special.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    model = scripted(special, YES + first_answer(tasks))
    found, samples = figures(model, special, tasks, "fictional_arithmetic", limit=1)
    assert found["closed[every]"] == 1
    assert samples[0]["resps"][0][0].startswith("<think>It is Orlo")


def test_k_samples_give_their_mean_and_whether_any_is_right(tokenizer, tasks):
    right = first_answer(tasks)
    model = scripted(tokenizer, YES + right, YES + "no", "<think>on and on", YES + right)
    with pytest.raises(UserError, match="its 4 samples of a row would all be the same"):
        figures(model, tokenizer, tasks, "fictional_arithmetic", limit=1, repeats=4)
    cold = {"do_sample": True, "temperature": 0.01}
    found, samples = figures(
        model, tokenizer, tasks, "fictional_arithmetic", limit=1, repeats=4, decoding=cold
    )
    assert found == {
        "acc[every]": 0.5,
        "pass_at_k[every]": 1.0,
        "closed[every]": 0.75,
        "acc_as_published[every]": 0.5,
    }
    assert len(samples[0]["resps"][0]) == 4


def test_stop_texts_end_an_answer_and_no_trace(tokenizer):
    """The harness's own class would cut the thought at its first question."""
    model = scripted(tokenizer, YES + "Orlo.\nQuestion: more")
    lm = in_memory(model, tokenizer)
    (text,) = lm._continuations([[5, 6]], {"until": ["Question:"], "do_sample": False, "max_gen_toks": 200})
    assert text == YES + "Orlo.\n"
    plain = in_memory(scripted(tokenizer, "Orlo.\nQuestion: more"), tokenizer, "direct")
    (text,) = plain._continuations([[5, 6]], {"until": ["Question:"], "do_sample": False, "max_gen_toks": 99})
    assert text == "Orlo.\n"


def test_generation_stops_when_all_rows_have_met_a_stop_text(tokenizer):
    model = scripted(tokenizer, "Orlo. Question: " + "more " * 100)
    in_memory(model, tokenizer, "direct")._continuations(
        [[5, 6]], {"until": ["Question:"], "do_sample": False, "max_gen_toks": 200}
    )
    assert model.step < 20


def test_a_prompt_that_leaves_no_room_for_the_answer_is_an_error(tokenizer):
    lm = in_memory(scripted(tokenizer, "a"), tokenizer)
    with pytest.raises(UserError, match="500 tokens and max_gen_toks 20 exceed the model's context of 512"):
        lm._continuations([[5] * 500], {"until": [], "max_gen_toks": 20})
    with pytest.raises(UserError, match="has 602 tokens, more than the model's context of 512"):
        lm._loglikelihood_tokens([(("", ""), [5] * 600, [6, 7])])
    with pytest.raises(UserError, match="num_beams"):
        lm._continuations([[5]], {"until": [], "num_beams": 2})


def test_models_with_other_weights_have_other_scores(tokenizer, tasks):
    one, other = random_llama(tokenizer), random_llama(tokenizer)
    with torch.no_grad():
        for p in other.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(7)))
    logps = [
        figures(model, tokenizer, tasks, "fictional_forget10_choices", limit=6, chat=False)[1][0]["resps"]
        for model in (one, other)
    ]
    assert logps[0] != logps[1]


def test_batches_of_one_row_and_of_many_give_the_same_scores(tokenizer, tasks):
    model = random_llama(tokenizer)
    logps = []
    for batch_tokens in (1, 4096):
        _, samples = figures(
            model, tokenizer, tasks, "fictional_forget10_choices", batch_tokens, limit=8, chat=False
        )
        logps.append([[option[0][0] for option in row["resps"]] for row in samples])
    np.testing.assert_allclose(*logps, rtol=1e-5)


def test_scoring_batches_hold_the_tokens_that_were_granted(tokenizer, tasks):
    model, seen = random_llama(tokenizer), []
    own = model.forward
    model.forward = lambda **inputs: (seen.append(inputs["input_ids"].shape), own(**inputs))[1]
    figures(model, tokenizer, tasks, "fictional_forget10_choices", 200, limit=20, chat=False)
    assert max(rows * width for rows, width in seen) <= 200
    assert max(rows for rows, _ in seen) > 1
    assert sum(rows for rows, _ in seen) == 20, "options of one token share a forward pass"


def test_everything_is_left_as_it_was_found(tokenizer, tasks):
    model = random_llama(tokenizer).train()
    model.config.use_cache = False
    tokenizer.padding_side = "right"
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    state = random.getstate(), torch.get_rng_state()
    generation = model.generation_config
    numbers = np.random.get_state()[1].copy()
    figures(
        model,
        tokenizer,
        tasks,
        "fictional_arithmetic",
        limit=2,
        decoding={"do_sample": True, "max_gen_toks": 4},
    )
    assert random.getstate() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])
    assert (np.random.get_state()[1] == numbers).all()
    assert model.training and model.config.use_cache is False
    assert model.generation_config is generation
    assert tokenizer.padding_side == "right"


@pytest.mark.slow
def test_tasks_of_ours_open_no_socket(tokenizer, tasks, monkeypatch):
    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in tasks_of(["smoke"]):
        found, _ = figures(
            random_llama(tokenizer), tokenizer, tasks, name, limit=2, chat="choices" not in name
        )
        assert found


def test_a_tokenizer_that_ends_every_text_scores_as_one_that_does_not(tokenizer, tasks):
    """The harness would leave its EOS between question and option."""
    import copy

    from tokenizers.processors import TemplateProcessing

    ending = copy.deepcopy(tokenizer)
    ending.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {tokenizer.eos_token}", special_tokens=[(tokenizer.eos_token, tokenizer.eos_token_id)]
    )
    assert ending("a")["input_ids"][-1] == tokenizer.eos_token_id
    model = random_llama(tokenizer)
    logps = [
        figures(model, used, tasks, "fictional_forget10_choices", limit=3, chat=False)[1][0]["resps"]
        for used in (tokenizer, ending)
    ]
    assert logps[0] == logps[1]


def test_prompts_are_those_of_the_projects_own_metrics(tokenizer):
    """A tokenizer with BOS puts it before plain text, and not before a chat template that has none."""
    import copy

    from tokenizers.processors import TemplateProcessing

    beginning = copy.deepcopy(tokenizer)
    beginning.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|user|> $A", special_tokens=[("<|user|>", tokenizer.convert_tokens_to_ids("<|user|>"))]
    )
    for mode in ("thinking", "direct", "plain"):
        lm = in_memory(random_llama(beginning), beginning, mode)
        text = lm.apply_chat_template([{"role": "user", "content": "Who taught Orlo?"}])
        assert lm.tok_encode(text) == Template(beginning).prompt_ids("Who taught Orlo?", mode)


def test_an_unknown_task_is_answered_with_near_ones(tasks, monkeypatch):
    monkeypatch.setattr("unlearnkit.metrics.lm_eval._folders", lambda name: [])
    monkeypatch.setattr(
        "unlearnkit.metrics.lm_eval.Tasks._manager", lambda self, folder, everything=False: small_manager()
    )
    with pytest.raises(UserError, match="unknown task 'gsm8k_thinkin'; did you mean gsm8k_thinking"):
        tasks.manager_of("gsm8k_thinkin")


def small_manager():
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS), include_defaults=False)


def test_the_costs_of_a_task_are_its_rows_samples_and_budget(tasks):
    costs = costs_of(tasks.load("fictional_arithmetic"), 10, 3, {"max_gen_toks": 50})
    assert (costs.rows, costs.samples, costs.new_tokens, len(costs.prompts)) == (10, 3, 50, 50)
    scored = costs_of(tasks.load("fictional_forget10_choices"), 0, 0, {})
    assert (scored.rows, scored.samples, scored.new_tokens) == (100, 4, 0)
