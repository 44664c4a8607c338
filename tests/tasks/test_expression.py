"""Termination by expression: Python's own meaning of the same text, and nothing else of Python."""

import math
import re
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mopo_cli.errors import InputError
from mopo_cli.tasks.expression import expression_reward, expression_rule, parse_condition, parse_reward
from mopo_cli.tasks.expression_parser import MAX_DEPTH, MAX_LENGTH
from mopo_cli.tasks.termination import check_rule_width, hopper, termination_rule

WIDTH = 3
# Eighths are the same number in single and in double precision.
EIGHTHS = st.integers(-16, 16).map(lambda n: n / 8)
STATES = st.lists(st.lists(EIGHTHS, min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=8)
OPERATORS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


def joined(part: st.SearchStrategy[str], words: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda a, w, b: f"{a} {w} {b}", part, words, part)


VALUES = st.recursive(
    st.integers(-WIDTH, WIDTH - 1).map(lambda i: f"obs[{i}]") | st.integers(0, 16).map(lambda n: f"{n / 8}"),
    lambda value: st.builds(str.format, st.sampled_from(["-{}", "abs({})", "( {} )", "- -{}"]), value),
    max_leaves=3,
)
COMPARISONS = joined(VALUES, OPERATORS) | st.builds(
    lambda a, one, b, two, c: f"{a}{one}{b} {two}{c}", VALUES, OPERATORS, VALUES, OPERATORS, VALUES
)
CONDITIONS = st.recursive(
    COMPARISONS,
    lambda part: (
        joined(part, st.sampled_from(["and", "or"]))
        | st.builds(str.format, st.sampled_from(["not {}", "({})", "not ({})"]), part)
    ),
    max_leaves=6,
)


def ends(text: str, states: Any) -> list[bool]:
    tensor = torch.tensor(states, dtype=torch.float32)
    terminal = termination_rule(text)(tensor, torch.zeros(len(tensor), 1), tensor)
    assert terminal.dtype == torch.bool and terminal.shape == tensor.shape[:-1]
    return terminal.tolist()


def as_python_has_it(text: str, state: list[float]) -> bool:
    return bool(eval(text, {"__builtins__": {}, "obs": state, "abs": abs}))


@given(CONDITIONS, STATES)
def test_it_means_what_python_means(text: str, states: list[list[float]]) -> None:
    assume("obs" in text)
    assert ends(text, states) == [as_python_has_it(text, state) for state in states]


TOKENS = [*"0123456789.<>=!-()[] \t\n", "obs", "obs[0]", "obs[1]", "abs(", " and ", " or ", "not ", "<=", "=="]


@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
def test_what_is_accepted_is_python_with_the_same_meaning(text: str) -> None:
    try:
        rule = parse_condition(text)
    except InputError as error:
        assert error.message.startswith("The termination rule ")
        return
    assume(all(-WIDTH <= index < WIDTH for index in (i for _, i in rule.entries)))
    assume(not re.search(r"(?<![\d.])0\d", text))  # Python writes no number with leading zeros
    state = [0.5, -1.0, 2.0]
    assert ends(text, [state]) == [as_python_has_it(" ".join(text.split()), state)]


@given(CONDITIONS, st.lists(st.sampled_from([0.5, math.nan, math.inf, -math.inf]), min_size=WIDTH, max_size=WIDTH))
def test_an_entry_it_names_that_is_not_finite_ends_the_episode(text: str, state: list[float]) -> None:
    named = {int(index) % WIDTH for index in re.findall(r"obs\[(-?\d)\]", text)}
    assume(named)
    lost = any(not math.isfinite(state[index]) for index in named)
    assert ends(text, [state]) == [lost or as_python_has_it(text, state)]


def test_an_entry_it_does_not_name_does_not_matter() -> None:
    assert ends("obs[0] > 1", [[0, math.nan, math.inf], [2, math.nan, 0]]) == [False, True]
    assert ends("not obs[0] > 1", [[math.nan, 0, 0], [2, 0, 0]]) == [True, False]


def test_the_hoppers_rule_can_be_written_out() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(0, 1, (5000, 11)).astype(np.float32) * np.array([1, 0.2, *[50] * 9], np.float32)
    states[:, 0] += 1
    text = "obs[0] <= 0.7 or abs(obs[1]) >= 0.2 or " + " or ".join(f"abs(obs[{i}]) >= 100" for i in range(1, 11))
    tensor = torch.from_numpy(states)
    expected = hopper(tensor, tensor, tensor)
    assert ends(text, states) == expected.tolist()
    assert 0.5 < expected.float().mean() < 1


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 5, 3)])
def test_any_number_of_leading_dimensions(shape: tuple[int, ...]) -> None:
    states = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = expression_rule("obs[-1] > 0 or 0.5 < obs[0]")(states, states, states)
    assert torch.equal(result, (states[..., -1] > 0) | (states[..., 0] > 0.5))


@pytest.mark.parametrize(
    ("text", "part", "sentence"),
    [
        ("", "its end", "not allowed"),
        ("obs[0] >", "its end", "not allowed"),
        ("obs[0] > 1 and", "its end", "not allowed"),
        ("(obs[0] > 1", "'(obs[0]' (character 1)", "not allowed"),
        ("obs[0] > 1)", "')' (character 11)", "not allowed"),
        ("obs[0]", "'obs[0]' (character 1)", "compare it"),
        ("1 < obs[0] and obs[1]", "'obs[1]' (character 16)", "compare it"),
        ("not obs[0]", "'obs[0]' (character 5)", "compare it"),
        ("(obs[0] > 1) > 1", "'obs[0] > 1' (character 2)", "a condition where a number"),
        ("abs(obs[0] > 1) > 1", "'obs[0] > 1' (character 5)", "a condition where a number"),
        ("-(obs[0] > 1) > 1", "'obs[0] > 1' (character 3)", "a condition where a number"),
        ("obs[0] = 1", "'=' (character 8)", "not allowed"),
        ("obs[0] > 1j", "'1j' (character 10)", "not known"),
        ("obs[0] > 1e39", "'1e39' (character 10)", "too large"),
        ("obs[0] > 1" + "0" * 400, "(character 10)", "too large"),
        ("obs[0] > True", "'True' (character 10)", "not known"),
        ("obs[0:2] > 1", "'0:2' (character 5)", "number of an entry"),
        ("obs[1.0] > 1", "'1.0' (character 5)", "number of an entry"),
        ("obs[9999999] > 1", "'9999999' (character 5)", "number of an entry"),
        ("obs[obs[0]] > 1", "'obs[0]' (character 5)", "number of an entry"),
        ("obs['angle'] > 1", "(character 5)", "or its name in quotes"),
        ("obs.T[0] > 1", "'obs.T[0]' (character 1)", "not known"),
        ("obs > 1", "'obs' (character 1)", "not known"),
        ("angle > 1", "'angle' (character 1)", "not known"),
        ("abs > 1", "'abs' (character 1)", "not known"),
        ("abs(obs[0], 1) > 1", "'abs(obs[0], 1)' (character 1)", "one number in its brackets"),
        ("max(obs[0]) > 1", "'max(obs[0])' (character 1)", "several numbers in its brackets"),
        ("obs[0] // 2 > 1", "'obs[0] // 2' (character 1)", "an operator that is not known"),
        ("obs[0] in obs[1] or 1 < 2", "(character 1)", "a comparison that is not known"),
        ("__import__('os').system('x')", "(character 1)", "not known"),
        ("(lambda: obs[0])() > 1", "'lambda: obs[0]' (character 2)", "not known"),
        ("[x for x in obs][0] > 1", "(character 1)", "not known"),
        ("obs[0] > 1; obs[1] > 1", "';' (character 11)", "not allowed"),
        ("obs[٣] > 1", "(character 5)", "not allowed"),
        ("1 < 2", "'1 < 2' (character 1)", "no entry of the observation"),
    ],
)
def test_the_part_at_fault_is_pointed_at(text: str, part: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_condition(text)
    message = caught.value.message
    assert message.startswith(f"The termination rule {text!r} cannot be read: ")
    assert part in message and sentence in message
    assert caught.value.hint


def test_what_python_cannot_read_at_all_is_refused() -> None:
    for text in ("obs[0] > 1\x00", "(" * 900 + "obs[0]" + ")" * 90):
        with pytest.raises(InputError, match=r"The termination rule .* cannot be read"):
            parse_condition(text)


NESTED = {
    "sums": lambda n: "1 + (" * n + "obs[0]" + ")" * n + " > 1",
    "not": lambda n: "not " * n + "obs[0] > 1",
    "minus": lambda n: "-" * n + "obs[0] > 1",
    "abs": lambda n: "abs(" * n + "obs[0]" + ")" * n + " > 1",
}


@pytest.mark.parametrize("kind", NESTED)
def test_nesting_and_length_are_bounded(kind: str) -> None:
    assert len(ends(NESTED[kind](MAX_DEPTH - 2), [[2.0, 0, 0]])) == 1
    with pytest.raises(InputError, match=f"nested deeper than {MAX_DEPTH}"):
        parse_condition(NESTED[kind](MAX_DEPTH + 1))
    with pytest.raises(InputError, match=r"\d+ characters; 1000 are allowed"):
        parse_condition(NESTED[kind](100_000))


@pytest.mark.parametrize("joint", ["<", " or obs[0]>1", " and not obs[0]>1", "+1"])
def test_the_longest_chains_are_within_the_stack(joint: str) -> None:
    text = "obs[0]<1" if joint == "<" else "obs[0]>1"
    tail = "<1" if joint == "<" else joint  # "+1" makes a sum of hundreds of terms
    text += tail * ((MAX_LENGTH - len(text)) // len(tail))
    assert ends(text, [[0.5, 0, 0]]) == [as_python_has_it(text, [0.5, 0, 0])]


def test_a_word_alone_is_the_name_of_a_rule() -> None:
    assert termination_rule("hopper") is hopper
    for word, says in (
        ("hoper", "did you mean 'hopper'"),
        ("os.system", "not known; the rules are"),
        ("obs", "not known"),
    ):
        with pytest.raises(InputError, match=says):
            termination_rule(word)


@pytest.mark.parametrize(
    ("rule", "least"),
    [
        ("obs[2] > 1", 3),
        ("obs[-4] > 1 or obs[0] > 1", 4),
        ("obs[0] > 1", 1),
        ("inverted-double-pendulum", 5),
        ("none", 1),
    ],
)
def test_a_rule_for_wider_observations_is_refused(rule: str, least: int) -> None:
    check_rule_width(rule, least, 1)
    if least > 1:
        with pytest.raises(InputError, match=re.escape(rule)):
            check_rule_width(rule, least - 1, 1)


NAMES = {"obs": ["temp", "Fluss [m³/h]", "temp 2"], "action": ["valve", "temp 2"]}


@given(st.lists(EIGHTHS, min_size=3, max_size=3), st.lists(EIGHTHS, min_size=2, max_size=2), st.integers(1, 9))
@pytest.mark.parametrize(
    "text",
    [
        "-abs(obs[0] - next_obs[1]) - 0.5 * action[0]**2",
        "min(obs[0], obs[1], 1) + max(action[1], 0.25) / 4",
        "1.0 * (obs[0] > 0.5) - (2 if not action[0] >= 0 else obs[2]) * step",
        "exp(obs[0]) + tanh(obs[1]) + sin(obs[2]) * cos(action[0]) + sqrt(abs(obs[0])) - log(1 + step)",
        "2 * step - 3 - 4 + obs[-1]",
    ],
)
def test_a_reward_means_what_python_means(text: str, state: list[float], action: list[float], step: int) -> None:
    following = [x + 0.5 for x in state]
    places = {"obs": state, "action": [10 * (a + 1) for a in action], "next_obs": following, "step": step}
    functions = {name: getattr(math, name) for name in ("exp", "log", "sqrt", "sin", "cos", "tanh")}
    expected = eval(text, {"__builtins__": {}, "abs": abs, "min": min, "max": max, **functions, **places})
    rule = expression_reward(text, ([0.0, 0.0], [20.0, 20.0]))  # actions are given in [-1, 1]
    now, acted, after = (torch.tensor([values]) for values in (state, action, following))
    assert rule(now, acted, after, torch.tensor([step])).item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abs(temp) > 0.8", "abs(obs[0]) > 0.8"),
        ("obs['Fluss [m³/h]'] > valve", "obs[1] > action[0]"),
        ("action['temp 2'] > 1 and step >= 3", "action[1] > 1 and step >= 3"),
        ("next_obs['temp 2'] < obs[-1]", "next_obs[2] < obs[-1]"),
    ],
)
def test_names_of_columns_become_their_numbers(text: str, expected: str) -> None:
    assert parse_condition(text, NAMES).text == expected
    with pytest.raises(InputError, match=r"not known|its name in quotes") if expected != text else nullcontext():
        parse_condition(text)


def test_a_name_of_both_is_refused_and_a_condition_is_no_reward() -> None:
    with pytest.raises(InputError, match=r"'speed' .* is both an observation and an action here"):
        parse_condition("speed > 1", {"obs": ["speed"], "action": ["speed"]})
    with pytest.raises(InputError, match=r"The reward 'obs\[0\] > 1' cannot be read: .* is a condition; write 1.0"):
        parse_reward("obs[0] > 1")


def test_a_rule_may_count_steps_and_look_at_actions() -> None:
    rule = expression_rule("step >= 3 or action[0] > 50", ([0.0], [100.0]))
    state, action = torch.zeros(4, 1), torch.tensor([[-1.0], [0.5], [-1.0], [0.0]])
    assert rule.uses_step
    assert rule(state, action, state, torch.tensor([1, 2, 3, 2])).tolist() == [False, True, True, False]
