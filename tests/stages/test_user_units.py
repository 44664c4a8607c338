"""Rules and policies see the user's units, whatever was taken off observations before they were stored."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from mopo_cli.agents.actor import Actor
from mopo_cli.data.restated import in_user_units
from mopo_cli.data.transitions import DatasetInfo, denormalise_actions
from mopo_cli.nets.stacked import mlp_layout
from mopo_cli.stages.common.policies import greedy_policy, open_policy, save_policy
from mopo_cli.stages.common.user_units import for_stored, newest_inputs, offset_of
from mopo_cli.stages.common.watch import Game
from mopo_cli.tasks.expression import expression_rule

ONE = np.ones(1, np.float32)
INFO = DatasetInfo("my.csv", None, "", -ONE, ONE, "none", observation_offset=np.array([1.7e9, 0.0]))
NONE = replace(INFO, observation_offset=None)
LAYOUT = mlp_layout((2, 8, 2))
ACTOR = Actor(torch.randn(1, LAYOUT.size, generator=torch.Generator().manual_seed(0)), LAYOUT, -5.0, 2.0)
STATES = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))


def test_a_rule_sees_the_users_numbers_in_double_precision() -> None:
    rule = expression_rule("obs[0] > 1700000060")
    stored = torch.tensor([[60.0, 0.0], [61.0, 0.0]])
    nothing = torch.zeros(2, 1)
    assert in_user_units(rule, INFO)(stored, nothing, stored).tolist() == [False, True]
    assert in_user_units(rule, NONE) is rule


def test_a_policy_file_tells_its_offset_and_acts_on_raw_observations(tmp_path: Path) -> None:
    meta = {"obs_dim": 2, "act_dim": 1, "hidden": 8, "layers": 1, "action_low": [-1.0], "action_high": [1.0]}
    meta |= {"seed": 0, "inputs": {"dataset": "0" * 64}, "observation_offset": list(offset_of(INFO))}
    save_policy(tmp_path / "policy.safetensors", ACTOR, meta)
    actor, _ = open_policy(tmp_path / "policy.safetensors", torch.device("cpu"))
    act = greedy_policy(actor, meta["action_low"], meta["action_high"])
    raw = STATES.double().numpy() + offset_of(INFO)
    np.testing.assert_allclose(act(raw), ACTOR.greedy(STATES).numpy(), atol=1e-5)
    # Without the offset all of them are one state.
    assert len(np.unique(greedy_policy(ACTOR, [-1.0], [1.0])(raw.astype(np.float32)))) == 1


def test_a_policy_of_data_with_another_offset_is_moved() -> None:
    theirs = replace(ACTOR, offset=(1.7e9 - 3.0, 0.5))
    moved = for_stored(theirs, INFO)
    assert moved.offset == offset_of(INFO)
    expected = ACTOR.greedy(STATES + torch.tensor([3.0, -0.5]))
    torch.testing.assert_close(moved.greedy(STATES), expected, rtol=1e-4, atol=1e-5)
    assert for_stored(moved, INFO) is moved and for_stored(ACTOR, NONE) is ACTOR


def test_a_game_takes_the_offset_off_what_the_environment_shows() -> None:
    seen = []

    class Spy(Actor):
        def greedy(self, observation: torch.Tensor) -> torch.Tensor:
            seen.append(observation)
            return super().greedy(observation)

    layout = mlp_layout((4, 8, 2))
    actor = Spy(torch.zeros(1, layout.size), layout, -5.0, 2.0)
    plain = Game("InvertedPendulum-v5", {}, 1, -3 * ONE, 3 * ONE)
    offset = (1.0, 0.0, -2.0, 0.0)
    for game in (plain, replace(plain, offset=offset)):
        environments = game.open(1)
        game.play(environments, actor, 5)
        environments[0].close()
    first, second = (seen[0], next(x for x in seen[1:] if abs(float(x[0, 0]) + 1) < 0.1))
    torch.testing.assert_close(first - second, torch.tensor([list(offset)]), rtol=0, atol=1e-6)


def test_no_action_is_beyond_a_bound() -> None:
    """In float32, -0.3 + (1 + 1) / 2 * (1.1 + 0.3) is the number after 1.1."""
    low, high = np.float32(-0.3), np.float32(1.1)
    assert low + (np.float32(1) + 1) / 2 * (high - low) > high
    saturated = SimpleNamespace(
        greedy=lambda seen: torch.ones(len(seen), 1), layout=ACTOR.layout, flat=ACTOR.flat, offset=()
    )
    width = ACTOR.layout.shapes[0][1][0]
    assert greedy_policy(saturated, [-0.3], [1.1])(np.zeros((3, width), np.float32)).max() == high  # type: ignore[arg-type]
    info = SimpleNamespace(action_low=np.array([low]), action_high=np.array([high]))
    assert denormalise_actions(np.ones((3, 1), np.float32), info).max() == high  # type: ignore[arg-type]


def test_inputs_of_a_model_are_shown_as_the_user_has_them() -> None:
    """Of observations of two steps, the newest one and the action: not the frame before and the action before."""
    low, high = np.array([0.0], np.float32), np.array([10.0], np.float32)
    offset = np.array([1.7e9, -3.0, 1.7e9, -3.0, 0.0])
    info = replace(INFO, action_low=low, action_high=high, observation_offset=offset, history=2)
    inputs = torch.tensor([[0.5, 3.5, 0.25, 2.5, 1.0, -0.5], [60.0, 3.0, 0.5, 3.5, -0.5, 1.0]])
    names, values = newest_inputs(inputs, info)
    assert names == ["obs[0]", "obs[1]", "action[0]"]
    assert values.tolist() == [[1.7e9 + 0.5, 0.5, 2.5], [1.7e9 + 60, 0.0, 10.0]]
    named = {"obs": ["time", "level", "time 1 step ago", "level 1 step ago", "valve 1 step ago"], "action": ["valve"]}
    assert newest_inputs(inputs, replace(info, names=named))[0] == ["time", "level", "valve"]
