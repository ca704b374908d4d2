"""What replicas are believed to have read, and which of them is asked."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_os.server.gateway.balance import HALF_LIFE, LATELY, NOW, Balance, Choice
from llm_os.server.gateway.prefixes import BLOCK, LONGEST, Prefixes, blocks, prompt_of


@given(st.text(max_size=4 * BLOCK), st.text(max_size=2 * BLOCK), st.text(max_size=2 * BLOCK))
def test_two_prompts_share_the_names_of_what_they_begin_with(common: str, one: str, other: str) -> None:
    first, second = blocks(common + one), blocks(common + other)
    shared = len(common) // BLOCK
    assert first[:shared] == second[:shared] == blocks(common)
    for at in range(min(len(first), len(second))):
        same = (common + one)[: (at + 1) * BLOCK] == (common + other)[: (at + 1) * BLOCK]
        assert (first[at] == second[at]) is same


def test_a_very_long_prompt_is_looked_at_in_part() -> None:
    assert len(blocks("x" * (2 * LONGEST))) == LONGEST // BLOCK
    assert blocks("\ud83d" * BLOCK)  # half characters harm nobody here


def test_the_next_turn_of_a_chat_begins_with_the_last_one() -> None:
    turn = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "x"}]}]
    later = [*turn, {"role": "assistant", "content": "y"}, {"role": "user", "content": "z"}]
    assert prompt_of({"messages": later}).startswith(prompt_of({"messages": turn}))
    assert prompt_of({"prompt": "abc"}) == "abc"
    assert prompt_of({"messages": turn, "tools": [{"a": 1}]}) != prompt_of({"messages": turn})
    assert prompt_of({"messages": "none", "prompt": [1, 2]}) == ""


CHAINS = st.lists(st.integers(0, 3), min_size=1, max_size=6)


def named(chain: list[int]) -> tuple[int, ...]:
    """Blocks whose names tell the way to them, as hashes do."""
    return tuple(hash(tuple(chain[: end + 1])) for end in range(len(chain)))


@given(st.lists(st.tuples(st.sampled_from("abc"), CHAINS), max_size=40), CHAINS, st.integers(1, 12))
def test_what_is_known_is_what_a_plain_model_says(
    sent: list[tuple[str, list[int]]], asked: list[int], capacity: int
) -> None:
    prefixes, plain = Prefixes(capacity), {name: list[int]() for name in "abc"}
    for replica, chain in sent:
        prefixes.add(replica, named(chain))
        held = plain[replica]
        for name in reversed(named(chain)):
            if name in held:
                held.remove(name)
            held.append(name)
        del held[: max(0, len(held) - capacity)]
    expected = {}
    for replica, held in plain.items():
        depth = 0
        for name in named(asked):
            if name not in held:
                break
            depth += 1
        if depth:
            expected[replica] = depth
    assert prefixes.known(named(asked)) == expected
    prefixes.forget(["a", "never there"])
    assert prefixes.known(named(asked)) == {replica: depth for replica, depth in expected.items() if replica != "a"}
    prefixes.forget("bc")
    assert not prefixes._where


def a_balance() -> Balance:
    return Balance(Prefixes(1000), 64.0)


def test_a_conversation_stays_where_it_was_read() -> None:
    balance, names = a_balance(), tuple(range(20))
    first = balance.choose(["a", "b"], names, 1300, 0.0)
    balance.begin(first, 0.0)
    again = balance.choose(["a", "b"], (*names, 99), 1400, 1.0)
    assert again.replica == first.replica
    assert again.to_read == 1400 - 20 * 64
    other = balance.choose(["a", "b"], (7777,), 64, 1.0)
    assert other.replica != first.replica
    elsewhere = balance.choose(["a", "b"], names, 1300, 1.0, avoid={first.replica})
    assert elsewhere.replica != first.replica


def test_a_hot_prefix_does_not_bring_everything_to_one_replica() -> None:
    balance, common = a_balance(), tuple(range(8))
    given = dict.fromkeys("abcd", 0)
    source = random.Random(5)
    for number in range(400):
        names = (*common, *(1000 + 50 * number + at for at in range(source.randrange(4, 30))))
        choice = balance.choose("abcd", names, 64 * len(names), number)
        balance.begin(choice, number)
        balance.end(choice, 100, number)
        given[choice.replica] += 1
    assert min(given.values()) > 70


def test_without_a_prompt_the_least_busy_is_asked() -> None:
    balance = a_balance()
    first = balance.choose(["a", "b"], (), 10, 0.0)
    balance.begin(first, 0.0)
    second = balance.choose(["a", "b"], (), 10, 0.0)
    assert second.replica != first.replica
    balance.begin(second, 0.0)
    balance.end(first, 0, 1.0)
    assert balance.choose(["a", "b"], (), 10, 1.0).replica == first.replica


def test_a_new_replica_is_not_given_everything() -> None:
    balance = a_balance()
    for number in range(100):
        choice = balance.choose(["a", "b"], (number,), 1000, number)
        balance.begin(choice, number)
        balance.end(choice, 0, number)
    asked = []
    for number in range(100, 130):
        choice = balance.choose(["a", "b", "new"], (number,), 1000, number)
        balance.begin(choice, number)
        balance.end(choice, 0, number)
        asked.append(choice.replica)
    assert asked.count("new") <= 12


def test_long_ago_counts_little_and_a_long_life_changes_nothing() -> None:
    balance = a_balance()
    for replica in "ab":
        balance.choose([replica], (1,), 0, 0.0)
    balance._given["a"] = 10.0**6
    assert balance.choose(["a", "b"], (9,), 0, 0.0).replica == "b"
    later = 30 * HALF_LIFE
    choice = balance.choose(["b"], (9,), 100.0, later)
    balance.begin(choice, later)
    assert balance._given["a"] < 100 < balance._given["b"] + 1
    balance.keep({"b"})
    assert set(balance._given) == {"b"}
    balance.end(balance.choose(["b"], (), 1, later), 1, later)


def test_an_answer_of_a_replica_that_is_gone_is_no_harm() -> None:
    balance = a_balance()
    choice = balance.choose(["a"], (1,), 100, 0.0)
    balance.begin(choice, 0.0)
    balance.keep(())
    balance.end(choice, 10, 1.0)
    with pytest.raises(KeyError):
        _ = balance._open["a"]


def test_a_machine_that_is_up_for_long_makes_no_difference() -> None:
    long = 400 * 24 * 3600.0
    balance = Balance(Prefixes(100), 64.0)
    first = balance.choose(["a", "b"], (1, 2), 128, long)
    balance.begin(first, long)
    balance.end(first, 10, long + 1)
    assert balance.choose(["a", "b"], (1, 2), 128, long + 2).replica == first.replica  # it has read that
    later = balance.choose(["a", "b", "c"], (), 128, 2 * long)  # idle for so long that all it was given is forgotten
    balance.begin(later, 2 * long)
    assert balance.choose(["a", "b", "c"], (), 128, 2 * long).replica != later.replica


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), CHAINS), max_size=20),
    CHAINS,
    st.lists(st.floats(0, 1e5), min_size=5, max_size=5),
    st.sets(st.sampled_from("abcde")),
)
def test_nobody_costs_less_than_the_one_that_is_chosen(
    sent: list[tuple[str, list[int]]], asked: list[int], work: list[float], avoid: set[str]
) -> None:
    """A plain reading of the formula; `e` has been sent nothing."""
    balance, names = Balance(Prefixes(8), 64.0), named(asked)
    for replica in "abcde":
        balance.choose([replica], (), 0.0, 0.0)
    for replica, chain in sent:
        balance.prefixes.add(replica, named(chain))
    for replica, tokens in zip("abcde", work, strict=True):
        balance.begin(Choice(replica, (), tokens), 0.0)
    known = balance.prefixes.known(names)
    costs = {
        replica: (LATELY + NOW) * tokens - 64.0 * known.get(replica, 0)
        for replica, tokens in zip("abcde", work, strict=True)
    }
    allowed = set("abcde") - avoid or set("abcde")
    choice = balance.choose("abcde", names, 1000.0, 0.0, avoid)
    assert choice.replica in allowed
    assert costs[choice.replica] <= min(costs[replica] for replica in allowed) + 1e-6
    assert choice.to_read == pytest.approx(max(0.0, 1000.0 - 64.0 * known.get(choice.replica, 0)))
