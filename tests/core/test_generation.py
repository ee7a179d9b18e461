from dataclasses import replace

import torch

from unlearnkit.core.batching import length_batches
from unlearnkit.core.generation import DecodingOptions, decode, generate
from unlearnkit.core.thinking import split_trace

PROMPTS = [
    "Where was Abelin born?",
    "Who taught?",
    "Which animal lives with Brisa Greaves, and which work is known?",
]


def test_batched_answers_equal_answers_one_by_one(tiny_model, tokenizer):
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    together = generate(tiny_model, tokenizer, prompts, DecodingOptions(12))
    alone = [generate(tiny_model, tokenizer, [prompt], DecodingOptions(12))[0] for prompt in prompts]
    assert together == alone


def test_greedy_against_a_plain_loop(tiny_model, tokenizer):
    ids = tokenizer(PROMPTS[0])["input_ids"]
    written = list(ids)
    for _ in range(8):
        token = tiny_model(torch.tensor([written])).logits[0, -1].argmax().item()
        if token == tokenizer.eos_token_id:
            break
        written.append(token)
    assert generate(tiny_model, tokenizer, [ids], DecodingOptions(8))[0].text == decode(
        tokenizer, written[len(ids) :]
    )


def test_the_models_sampling_defaults_are_not_used(tiny_model, tokenizer):
    prompt = [tokenizer(PROMPTS[0])["input_ids"]]
    greedy = generate(tiny_model, tokenizer, prompt, DecodingOptions(8))
    tiny_model.generation_config.do_sample = True
    tiny_model.generation_config.temperature = 5.0
    tiny_model.generation_config.repetition_penalty = 3.0
    tiny_model.generation_config.min_length = 200
    own = tiny_model.generation_config
    assert generate(tiny_model, tokenizer, prompt, DecodingOptions(8)) == greedy
    assert tiny_model.generation_config is own


def test_end_tokens_stop_and_are_counted(tiny_model, tokenizer):
    prompt = [tokenizer(PROMPTS[0])["input_ids"]]
    first = tiny_model(torch.tensor(prompt)).logits[0, -1].argmax().item()
    tiny_model.generation_config.eos_token_id = [tokenizer.eos_token_id, first]
    stopped = generate(tiny_model, tokenizer, prompt, DecodingOptions(8))[0]
    assert (stopped.text, stopped.n_tokens, stopped.ended) == ("", 0, True)
    tiny_model.generation_config.eos_token_id = tokenizer.eos_token_id
    assert generate(tiny_model, tokenizer, prompt, DecodingOptions(8, stop_ids=[first]))[0].n_tokens == 0


def test_an_unclosed_trace_is_no_answer():
    assert split_trace("<think>on and on").answer is None
    assert split_trace("<think>on and on").trace == "on and on"
    thought = split_trace("<think>so it is Orlo</think> Orlo.")
    assert (thought.trace, thought.answer) == ("so it is Orlo", "Orlo.")
    assert split_trace("Orlo.").closed is False


def test_length_batches_cover_every_row_once_within_the_budget():
    lengths = [5, 90, 7, 40, 200, 3]
    batches = list(length_batches(lengths, 100))
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    assert all(len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 100 for batch in batches)


def test_texts_that_outlast_their_batch_resume_in_another_and_stay_the_same(tiny_model, tokenizer):
    """Many end tokens, so that texts end at different lengths; several batches, so that those that resume are
    put together."""
    numbers = torch.randint(20, 1400, (24,), generator=torch.Generator().manual_seed(3)).tolist()
    prompts = [[5, 6, number] for number in numbers]
    stops = list(range(0, 1494, 37))
    options = DecodingOptions(40, stop_ids=stops)
    alone = [generate(tiny_model, tokenizer, [prompt], options)[0] for prompt in prompts]
    own, sizes, counted = tiny_model.generate, [], {}
    tiny_model.generate = lambda **inputs: (sizes.append(len(inputs["input_ids"])), own(**inputs))[1]
    narrow = replace(options, batch_tokens=(3 + 40) * 6)
    together = generate(tiny_model, tokenizer, prompts, narrow, counted.update)
    assert together == alone
    assert len({text.n_tokens for text in alone}) > 3, "they end at different lengths"
    assert sizes.count(6) >= 4 and min(sizes) < 6, "done texts left, unfinished ones made further batches"
    assert [counted[place] for place in range(len(prompts))] == alone


def test_narrow_batches_hold_rows_of_like_length_unless_they_are_small():
    lengths = [100, 90, 80, 70, 60, 50, 9, 8, 7, 7, 7]
    batches = list(length_batches(lengths, 800, narrow=0.75))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert batches[0] == [0, 1, 2], "70 is less than 75"
    assert all(len(batch) * lengths[batch[0]] <= 800 for batch in batches)
    assert [len(batch) for batch in length_batches([50, 40, 9, 8, 7], 800, narrow=0.75)] == [2, 3]
