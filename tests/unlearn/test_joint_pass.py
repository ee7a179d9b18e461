"""One forward pass for several parts, without padding: the numbers of separate passes."""

import math

import pytest
import torch
import torch.nn.functional as F
from scripts import REPO
from tiny import few_steps, random_llama, random_other
from transformers import AutoTokenizer

from unlearnkit.unlearn import FORGET, RETAIN, compose, parse_method
from unlearnkit.unlearn.passes import joint_pass
from unlearnkit.unlearn.passes.joint_pass import JointPass, can_pack
from unlearnkit.unlearn.passes.model_head import head_is_apart
from unlearnkit.unlearn.passes.row_packing import (
    PADDING,
    balanced,
    choose_lines,
    first_fit,
    lay_out,
    line_width,
    row_lengths,
)
from unlearnkit.unlearn.scoring import answer_nll, answer_row_nll

LENGTHS = {"forget": [13, 5, 7, 4], "retain": [9, 3, 4]}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(REPO / "files/models/fictional/target")


def batch_of(lengths: dict[str, list[int]]) -> dict:
    """Rows of random tokens, the answer behind the first two."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, rows in lengths.items():
        attended = torch.arange(max(rows))[None] < torch.tensor(rows)[:, None]
        ids = torch.randint(3, 1000, attended.shape, generator=generator) * attended
        labels = ids.masked_fill(~attended, -100)
        labels[:, :2] = -100
        found[name] = {
            "input_ids": ids,
            "attention_mask": attended.long(),
            "labels": labels,
            "index": torch.arange(len(rows)),
        }
    return found


def plain_nll(model, part) -> torch.Tensor:
    scores = model(input_ids=part["input_ids"], attention_mask=part["attention_mask"]).logits[:, :-1]
    wanted = part["labels"][:, 1:] != -100
    return F.cross_entropy(scores[wanted], part["labels"][:, 1:][wanted], reduction="none")


def tried(model) -> bool:
    """Can the model do both? Asked first, since it is found out by passes of its own."""
    return head_is_apart(model) and can_pack(model)


def count_passes(model) -> list[tuple[int, ...]]:
    """The shape of the input of every forward pass from now on."""
    seen = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return seen


def test_the_longest_row_sets_the_width_and_no_row_is_lost():
    assert first_fit([13, 5, 7, 4, 9, 3, 4]) == [[0], [4, 3], [2, 1], [6, 5]]
    assert first_fit([4, 4, 4]) == [[0], [1], [2]]


def test_rows_of_similar_lengths_share_long_lines():
    lengths = [24, 23, 23, 22, 22, 22, 21, 21, 20, 20, 19, 18]  # no two fit on a line of 24
    assert len(first_fit(lengths)) == len(lengths)
    lines = choose_lines(lengths, 512)
    assert sorted(row for line in lines for row in line) == list(range(len(lengths)))
    assert sum(lengths) <= len(lines) * line_width(lengths, lines) <= 1.02 * sum(lengths)
    # A narrow model would spend more on attention than it saves.
    assert choose_lines(lengths, 16) == [[row] for row in range(len(lengths))]


def test_lines_are_of_like_length():
    assert balanced([13, 5, 7, 4, 9, 3, 4], 2) == [[0, 1, 6], [4, 2, 3, 5]]
    assert balanced([4, 4, 4], 1) == [[0, 1, 2]]


def test_rows_lie_behind_each_other_and_see_themselves_alone():
    batch = batch_of(LENGTHS)
    parts = list(batch.values())
    lengths = row_lengths(parts)
    lines = lay_out(parts, lengths, first_fit(lengths))
    assert lines.input_ids.shape == (4, 13)
    for part, places in zip(parts, lines.places):
        attended = part["attention_mask"].bool()
        assert torch.equal(lines.input_ids.flatten()[places[attended]], part["input_ids"][attended])
        assert torch.equal(
            lines.position_ids.flatten()[places[attended]],
            torch.arange(attended.shape[1]).expand_as(places)[attended],
        )
    assert (lines.row != PADDING).sum() == sum(lengths)
    sees, row = lines.attention()[:, 0], lines.row
    assert sees.any(-1).all(), "a token that sees nothing gets NaN"
    for line, query, key in sees.nonzero().tolist():
        assert key <= query and row[line, query] == row[line, key]
    assert sees.sum() == sum(n * (n + 1) // 2 for n in lengths) + sum(
        n * (n + 1) // 2 for n in (row == PADDING).sum(1).tolist()
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2", "falcon", "mixtral", "qwen2_moe"])
def test_values_and_gradients_are_those_of_separate_passes(kind, tokenizer):
    model = random_llama(tokenizer) if kind == "llama" else random_other(kind, tokenizer)
    batch = batch_of(LENGTHS)
    assert tried(model)
    seen = count_passes(model)
    joint = JointPass(model, list(batch.values()))
    found = {name: answer_nll(joint, part) for name, part in batch.items()}
    assert seen == [(2, 23)]
    weights = list(model.parameters())
    loss = lambda values: sum((v * torch.arange(1, len(v) + 1)).sum() for v in values.values())
    ours = torch.autograd.grad(loss(found), weights, allow_unused=True)
    expected = {name: plain_nll(model, part) for name, part in batch.items()}
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(ours, torch.autograd.grad(loss(expected), weights, allow_unused=True)):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_another_part_is_a_pass_of_its_own(tokenizer):
    model, batch = random_llama(tokenizer), batch_of(LENGTHS)
    assert tried(model)
    joint = JointPass(model, [batch["forget"]])
    torch.testing.assert_close(answer_nll(joint, batch["retain"]), plain_nll(model, batch["retain"]))


def test_rows_of_one_length_are_not_packed_and_need_no_mask(tokenizer):
    model, batch = random_llama(tokenizer), batch_of({"forget": [6, 6], "retain": [6, 6, 6]})
    assert tried(model)
    masks = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: masks.append(kwargs.get("attention_mask")), with_kwargs=True
    )
    answer_nll(JointPass(model, list(batch.values())), batch["forget"])
    assert masks == [None]


def test_labels_on_padding_are_scored_as_by_the_model_itself(tokenizer):
    model, part = random_llama(tokenizer), batch_of(LENGTHS)["forget"]
    part = part | {"labels": part["input_ids"]}  # padding too, as GAO's released code
    torch.testing.assert_close(answer_nll(model, part), plain_nll(model, part))


@pytest.mark.parametrize("changes", [{"_attn_implementation": "eager"}, {"sliding_window": 4}])
def test_attention_that_takes_no_such_mask_gets_separate_passes(changes, tokenizer):
    model, batch = random_llama(tokenizer), batch_of(LENGTHS)
    for name, value in changes.items():
        setattr(model.config, name, value)
    assert not can_pack(model)
    seen, joint = count_passes(model), JointPass(model, list(batch.values()))
    expected = plain_nll(model, batch["retain"])
    torch.testing.assert_close(answer_nll(joint, batch["retain"]), expected)
    assert seen[-2:] == [(4, 13), (3, 9)]


def test_a_model_whose_rows_reach_each_other_is_found_out(tokenizer, monkeypatch):
    model = random_llama(tokenizer)
    plain = model.forward

    def leaking(*args, attention_mask=None, **kwargs):
        return plain(*args, **kwargs)

    monkeypatch.setattr(model, "forward", leaking)
    monkeypatch.setattr(model.config, "_attn_implementation", "sdpa")
    monkeypatch.setattr(joint_pass, "lay_out", lambda *args: laid_without_positions(*args))
    assert not can_pack(model)


def laid_without_positions(parts, lengths, lines):
    """Rows behind each other that count their positions on: a model given no mask mixes them."""
    found = lay_out(parts, lengths, lines)
    running = torch.arange(found.input_ids.shape[1]).expand_as(found.input_ids)
    return type(found)(found.input_ids, running, found.row, found.places)


def scoring_objectives():
    """Every registered objective that declares it, in its default form."""
    for home in (FORGET, RETAIN):
        for kind in home.values():
            if kind().scores_answers:
                yield kind


@pytest.mark.parametrize("kind", scoring_objectives(), ids=lambda kind: kind.__name__)
def test_what_declares_it_asks_the_model_for_nothing_else(kind, tokenizer):
    """A joint pass cannot be called: whatever asks for more than answers raises."""

    class Reference:
        def logprob(self, name, part):
            return torch.full((len(part["labels"]),), -20.0)

        def answer_logits(self, name, part):
            return torch.zeros(int((part["labels"][:, 1:] != -100).sum()), len(tokenizer))

        reinforced = answer_logits

        def token_ids(self, text):
            return [5, 6]

    model, part = random_llama(tokenizer), batch_of(LENGTHS)["forget"]
    batch = {name: {key: value.clone() for key, value in part.items()} for name in sorted(kind().parts)}
    assert tried(model)
    seen = count_passes(model)
    terms = kind().terms(JointPass(model, list(batch.values())), batch, Reference())
    assert all(torch.isfinite(term.total) for term in terms.values())
    assert len(seen) == 1


def test_both_sides_of_a_method_share_a_pass(tokenizer):
    model, batch = random_llama(tokenizer), batch_of(LENGTHS)
    assert tried(model)
    seen = count_passes(model)
    method = parse_method("SimNPO+FT")
    composition = compose(method, {section: kind() for section, kind in method.sections.items()})
    terms = composition.terms(model, batch, None)
    assert seen == [(2, 23)]
    expected = plain_nll(model, batch["retain"]).sum()
    torch.testing.assert_close(terms["retain_nll"].term.total, expected)
    rows = answer_row_nll(model, batch["forget"])
    assert terms["simnpo"].term.total > 0 and len(rows) == 4
    seen.clear()
    composition.terms(model, batch, None, side="forget")
    assert len(seen) == 1 and seen[0][0] < 4


def test_bf16_autocast_holds_for_the_head_too(tokenizer, tmp_path):
    """The head runs after the model's own pass: the first loss of NPO is 2 log 2 / beta only where model and
    reference have the same arithmetic."""
    model, dtypes = random_llama(tokenizer), []

    def note(module, args, out):
        if out.requires_grad and out.shape[-1] == len(tokenizer):
            dtypes.append(out.dtype)

    model.lm_head.register_forward_hook(note)
    options = {"unlearn__unlearn_method": "NPO+FT", "unlearn__max_steps": 1, "overall__precision": "bf16"}
    seen = few_steps(model, tokenizer, tmp_path, **options)
    assert seen.records[0]["npo"] == pytest.approx(2 * math.log(2) / 0.1, rel=1e-6)
    assert set(dtypes) == {torch.bfloat16}


def test_what_is_tried_within_a_step_leaves_its_gradient_whole(tokenizer, tmp_path):
    """SimNPO has no reference: the model is tried in the first step, without gradient and in autocast."""
    options = {"unlearn__unlearn_method": "SimNPO+FT", "unlearn__max_steps": 1}
    norms = {
        precision: few_steps(
            random_llama(tokenizer), tokenizer, tmp_path / precision, overall__precision=precision, **options
        ).records[0]["grad_norm"]
        for precision in ("fp32", "bf16")
    }
    assert norms["bf16"] == pytest.approx(norms["fp32"], rel=0.02)
