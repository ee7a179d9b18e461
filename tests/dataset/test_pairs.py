"""Order and pairing are functions of (seed, epoch, row): nothing else may change them."""

from collections import Counter

import pytest
import torch

from unlearnkit.core.encoding import Encoded
from unlearnkit.dataset.collate import Collator
from unlearnkit.dataset.pairs import EpochSampler, Pairs


def rows(count: int, prefix: str) -> list[Encoded]:
    return [Encoded(f"{prefix}{i}", [1] * (3 + i * 7 % 11), 1, 1) for i in range(count)]


def test_partners_walk_through_the_whole_retain_set_before_any_comes_twice():
    pairs = Pairs({"forget": rows(10, "f"), "retain": rows(25, "r")}, seed=3)
    partners = [pairs[(epoch, i)]["retain"][0][0] for epoch in range(5) for i in range(10)]
    assert set(Counter(partners[:25]).values()) == {1}
    assert len(set(partners[:25])) == 25
    assert set(Counter(partners).values()) == {2}


def test_a_partner_does_not_depend_on_who_asks_or_when():
    make = lambda seed: Pairs({"forget": rows(10, "f"), "retain": rows(25, "r")}, seed=seed)
    forwards = [make(3)[(2, i)]["retain"][0] for i in range(10)]
    torch.manual_seed(99)
    shared = make(3)
    assert [shared[(2, i)]["retain"][0] for i in reversed(range(10))] == forwards[::-1]
    assert [make(4)[(2, i)]["retain"][0] for i in range(10)] != forwards


def test_counterparts_stay_with_their_forget_row():
    pairs = Pairs({"alternate": rows(10, "a"), "forget": rows(10, "f"), "retain": rows(25, "r")}, seed=3)
    for i in range(10):
        item = pairs[(1, i)]
        assert item["alternate"][0][0] == item["forget"][0][0] == i
    alone = Pairs({"alternate": rows(10, "a"), "retain": rows(25, "r")}, seed=3)
    assert len(alone) == 10
    assert alone[(1, 4)]["retain"] == pairs[(1, 4)]["retain"]


def test_lists_come_whole_with_their_forget_row_and_know_it_in_the_batch():
    lists = [[row] if i % 2 else [row, row, row] for i, row in enumerate(rows(10, "t"))]
    pairs = Pairs({"forget": rows(10, "f"), "traces": lists}, seed=3)
    places = [[place for place, _ in pairs[(4, i)]["traces"]] for i in range(10)]
    assert [place for several in places for place in several] == list(range(20))
    assert [len(p) for p in places] == [3, 1] * 5
    part = Collator(0)([pairs[(0, 4)], pairs[(0, 1)]])["traces"]
    assert part["owner"].tolist() == [0, 0, 0, 1]
    assert part["index"].tolist() == [8, 9, 10, 3]
    filler = Collator(0)([pairs[(0, -1)], pairs[(0, -1)]])
    assert filler["forget"]["index"].tolist() == filler["traces"]["index"].tolist() == [-1]


def test_epochs_are_shuffled_differently_and_reproducibly():
    pairs = Pairs({"forget": rows(50, "f")}, seed=0)
    order = lambda epoch: [sampler.set_epoch(epoch), list(sampler)][1]
    sampler = EpochSampler(pairs, seed=1)
    first, second = order(0), order(1)
    assert sorted(row for _, row in first) == list(range(50))
    assert {epoch for epoch, _ in second} == {1}
    assert [r for _, r in first] != [r for _, r in second]
    assert order(0) == first


def test_length_groups_hold_rows_of_like_length_and_every_row_once():
    pairs = Pairs({"retain": rows(103, "r")}, seed=0)
    order = [row for _, row in EpochSampler(pairs, seed=1, group_size=10)]
    assert sorted(order) == list(range(103))
    lengths = [len(pairs.parts["retain"][row].input_ids) for row in order]
    assert max(max(lengths[k : k + 10]) - min(lengths[k : k + 10]) for k in range(0, 100, 10)) <= 2


@pytest.mark.parametrize("parts", [("retain", "retain_alternate"), ("cot", "retain", "retain_alternate")])
def test_a_refusal_stays_with_its_question_where_no_forget_rows_lead(parts):
    """AP alone, or with a forget weight of 0."""
    pairs = Pairs({name: rows(25, name[0]) for name in parts}, seed=3)
    for epoch in range(3):
        for i in range(25):
            item = pairs[(epoch, i)]
            assert item["retain"][0][0] == item["retain_alternate"][0][0]
    assert {pairs[(1, i)]["retain"][0][0] for i in range(25)} == set(range(25))
