"""What has to be true of every algorithm: its file is enough to be tested here, its mathematics has another test.

Bit for bit: a member is alone what it is in a stack, with any number of threads, after a stop as without one, and
beside a member that has diverged. Replayed steps are the steps, operations are counted, every setting is a flag and a
key of a settings file.
"""

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import typer
from probes.gpu import as_on_cuda, record
from probes.stacks import ACT, OWN, SCHEDULE, assert_same, policy_settings, start
from torch import Tensor

from mopo_cli.agents.algorithm import agent_state
from mopo_cli.agents.algorithms import NAMES, load
from mopo_cli.agents.loop import advance, loop_state, restore_loop, trained_state
from mopo_cli.agents.runs import Loop
from mopo_cli.agents.world import World
from mopo_cli.bench.operations import counted, update_flops
from mopo_cli.bench.workloads import Shapes, taking
from mopo_cli.cli.app import app
from mopo_cli.config.learners import with_algorithm
from mopo_cli.config.presets import method_names
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import TrainModel, TrainPolicy
from mopo_cli.engine.members import Member
from mopo_cli.engine.streams import draws
from mopo_cli.errors import MopoError
from mopo_cli.stages.common.learner import learner_settings
from mopo_cli.store.checkpoint import load_tensors, save_tensors

every = pytest.mark.parametrize("name", NAMES)
MEMBERS = (Member(0, "max-var", 0.5, 3, 0), Member(3, "none", 0.0, 2, 1), Member(7, "max-var", 2.0, 3, 0))
MANY = tuple(Member(seed, "max-var", 0.5, 1, seed % 2) for seed in range(17))
# Blocks of 4 steps, three in an epoch; rollouts in the middle of an epoch, too, and a pool that holds several.
BLOCKS = replace(SCHEDULE, steps_per_epoch=12, rollout_every=8, actor_schedule="cosine", epochs=3)
Means = list[dict[str, Tensor]]


def begin(name: str, members: tuple[Member, ...] = MEMBERS, rows: int = 20, **how: Any) -> tuple[Loop, World]:
    rows = max(rows, 2 if load(name).learns_from == "both" else 1)
    return start(name, schedule=replace(BLOCKS, batch_size=rows), members=members, **how)


def finish(loop: Loop, world: World, end: int) -> Means:
    """Train to this step; the means of the epochs that end on the way."""
    means = []
    while loop.step < end:
        means.append(advance(loop, world))
    return [epoch for epoch in means if epoch is not None]


def trained(name: str, end: int, *sizes: Any, **how: Any) -> tuple[Loop, Means]:
    loop, world = begin(name, *sizes, **how)
    return loop, finish(loop, world, end)


def saved(loop: Loop) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return deepcopy(loop_state(loop))


def of_member(tensor: Tensor, m: int, members: int) -> Tensor:
    return tensor.unflatten(0, (members, -1))[m]


def assert_alone_as_stacked(stack: tuple[Loop, Means], m: int, alone: tuple[Loop, Means]) -> None:
    (whole, whole_means), (single, single_means), count = stack, alone, len(stack[0].members)
    (tensors, numbers), (others, other_numbers) = loop_state(whole), loop_state(single)
    assert (numbers["step"], numbers["adam"]) == (other_numbers["step"], other_numbers["adam"])
    for name, tensor in others.items():
        assert torch.equal(tensor, of_member(tensors[name], m, count)), (m, name)
    for means, wanted in zip(single_means, whole_means, strict=True):
        assert all(torch.equal(means[name][0], wanted[name][m]) for name in wanted)
    size = single.pool.sizes[0]
    assert whole.pool.sizes[m] == size and torch.equal(whole.pool.rows[m, :size], single.pool.rows[0, :size])
    assert whole.tallies[m : m + 1] == single.tallies


# At sizes for which the matrix kernels differ; the last one has more sampled actions than a thread takes at a time.
@pytest.mark.parametrize(("rows", "act_dim", "hidden"), [(1, 1, 5), (7, 1, 17), (37, 2, 16), (100, 6, 32)])
@every
def test_a_member_of_a_stack_is_bit_for_bit_the_same_alone(name: str, rows: int, act_dim: int, hidden: int) -> None:
    """Beside members with other penalties, models and horizons. Seeds tell members apart, not their places."""
    stack = trained(name, 20, MEMBERS, rows, act_dim=act_dim, hidden=hidden)
    for m, member in enumerate(MEMBERS):
        assert_alone_as_stacked(stack, m, trained(name, 20, (member,), rows, act_dim=act_dim, hidden=hidden))
    observation = torch.ones(1, 4)
    assert len({tuple(stack[0].agent.policy(m).greedy(observation)[0].tolist()) for m in range(3)}) == 3


@every
def test_a_member_of_many_is_bit_for_bit_the_same_alone(name: str) -> None:
    """More members than a vector of the processor holds."""
    stack = trained(name, 8, MANY, hidden=5)
    for m in (0, 8, 16):
        assert_alone_as_stacked(stack, m, trained(name, 8, MANY[m : m + 1], hidden=5))


@pytest.mark.parametrize("members", [MEMBERS[:1], MEMBERS], ids=["one", "three"])
@every
def test_the_number_of_threads_changes_no_byte(
    name: str, members: tuple[Member, ...], use_threads: Callable[[int], None]
) -> None:
    ends = []
    for threads in (1, 2, 3):
        use_threads(threads)
        ends.append(trained(name, 12, members, 100, hidden=33)[0])
    assert_same(ends[0], ends[1]), assert_same(ends[0], ends[2])


@every
def test_a_resumed_loop_ends_as_the_uninterrupted_one(name: str) -> None:
    """Stopped after any block, of the warm-up as well, and put back from memory that is not aligned."""
    whole, world = begin(name)
    states, epochs = [saved(whole)], []
    while whole.step < 24:
        epochs += finish(whole, world, whole.step + 1)
        states.append(saved(whole))
    warm_up = sum(load(name).warm_up(policy_settings(name)))
    assert states[0][1]["step"] <= -warm_up and len(epochs) == 2
    assert not any(whole.pool.capacities) or len(states[-1][1]["past"]) > 1
    for tensors, numbers in states[:-1]:
        shifted = {key: torch.cat([torch.zeros(1), x.flatten()])[1:].view_as(x) for key, x in tensors.items()}
        resumed, world = begin(name)
        restore_loop(resumed, world, shifted, deepcopy(numbers))
        means = finish(resumed, world, 24)
        assert_same(whole, resumed)
        assert resumed.tallies == whole.tallies
        for epoch, expected in zip(means, epochs[-len(means) :], strict=True):
            assert epoch.keys() == expected.keys() == {*load(name).metrics, "penalty", "reward"}
            assert all(torch.equal(epoch[key], mean) and mean.isfinite().all() for key, mean in expected.items())


@every
def test_what_is_not_a_number_stays_in_its_member_and_is_flagged(name: str) -> None:
    """Whatever of it is spoilt, the others learn on as if nothing had happened, and it is flagged if that spreads."""
    loop, world = begin(name)
    finish(loop, world, 8)
    tensors, numbers = saved(loop)
    parts = [key for key in trained_state(loop)[0] if key != "sums"]
    assert loop.agent.finite().tolist() == [True] * 3
    finish(loop, world, 16)
    healthy, _ = saved(loop)
    rows = [loop.pool.rows[m, : loop.pool.sizes[m]].clone() for m in range(3)]
    flagged = 0
    for part in parts:
        spoilt = {key: tensor.clone() for key, tensor in tensors.items()}
        of_member(spoilt[part], 1, 3).fill_(torch.nan)
        restore_loop(loop, world, spoilt, deepcopy(numbers))
        if f"{part}/first" in parts:  # Adam's moment: it is learned
            assert loop.agent.finite().tolist() == [True, False, True], part
        finish(loop, world, 16)
        spread = not all(of_member(trained_state(loop)[0][key], 1, 3).isfinite().all() for key in parts if key != part)
        assert loop.agent.finite().tolist() == [True, not spread, True], part
        flagged += spread
        for key in trained_state(loop)[0]:
            for m in (0, 2):
                assert torch.equal(*(of_member(state[key], m, 3) for state in (trained_state(loop)[0], healthy))), (
                    part,
                    key,
                )
        assert all(torch.equal(loop.pool.rows[m, : len(rows[m])], rows[m]) for m in (0, 2)), part
    assert flagged > len(parts) / 2


@pytest.mark.parametrize("whole", [False, True])
@every
def test_replayed_steps_are_the_steps(name: str, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded on the CPU as a GPU's graphs are: each phase of the warm-up, each step of a cycle, what is refreshed."""
    recorded = []

    def counting(work: Callable[[], None]) -> Callable[[], object]:
        recorded.append(work)
        return record(work)

    with as_on_cuda(monkeypatch) if whole else nullcontext():
        (plain, world), (replayed, same) = start(name), start(name, counting)
        means, others = finish(plain, world, 24), finish(replayed, same, 24)
    assert replayed.engine.why_eager is None
    assert_same(plain, replayed)
    assert all(torch.equal(one[key], other[key]) for one, other in zip(means, others, strict=True) for key in one)
    refreshes: list[int] = []
    load(name).refresh(plain.agent, draws(range(2), "test", 0, "cpu"), lambda *_: refreshes.append(1))
    assert len(recorded) == len(plain.phases) + plain.cycle + bool(refreshes)


@every
def test_all_members_at_once_as_on_a_gpu_are_the_same_but_for_rounding(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart, _ = trained(name, 12)
    with as_on_cuda(monkeypatch):
        together, _ = trained(name, 12)
        actions = [together.agent.policy(m).greedy(torch.ones(1, 4)) for m in range(3)]
    (tensors, steps), (others, other_steps) = trained_state(apart), trained_state(together)
    assert steps == other_steps
    for key, tensor in tensors.items():
        # Adam makes every first step as long as the rate: where a gradient is rounding alone, its sign is free.
        assert "second" in key or ((tensor - others[key]).abs() > 1e-4).float().mean() < 0.01, key
    for m, action in enumerate(actions):
        torch.testing.assert_close(apart.agent.policy(m).greedy(torch.ones(1, 4)), action, atol=1e-3, rtol=0)


@every
def test_a_step_changes_neither_its_batch_nor_the_metrics_of_the_step_before(name: str) -> None:
    loop, world = begin(name)
    update = loop.algorithm.update
    infos: list[dict[str, Tensor]] = [{}]

    def watched(agent: Any, batch: Any, noise: Any, scale: float) -> dict[str, Tensor]:
        columns, before = deepcopy(vars(batch)), deepcopy(infos[-1])
        infos.append(update(agent, batch, noise, scale))
        for key, value in vars(batch).items():
            assert torch.equal(value, columns[key]) if isinstance(value, Tensor) else value == columns[key], key
        assert all(torch.equal(infos[-2][key], value) for key, value in before.items())
        assert infos[-1].keys() == set(load(name).metrics) and all(value.shape == (3,) for value in infos[-1].values())
        return infos[-1]

    loop.algorithm = replace(loop.algorithm, update=watched)
    finish(loop, world, 12)
    assert len(infos) == 13


@every
def test_a_checkpoint_holds_all_of_it_and_one_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    loop, world = begin(name)
    finish(loop, world, 16)
    tensors, numbers = loop_state(loop)
    parts, _ = trained_state(loop)
    assert not {key for key in agent_state(loop.agent)[0] if key == "sums" or key.startswith("past/")}
    assert len({tensor.data_ptr() for tensor in parts.values()}) == len(parts), "no two names for one tensor"
    save_tensors(tmp_path / "checkpoint.safetensors", tensors, numbers)
    read, meta = load_tensors(tmp_path / "checkpoint.safetensors")
    other, world = begin(name)
    before = saved(other)
    assert {key: tensor.shape for key, tensor in parts.items()} == {key: x.shape for key, x in before[0].items()}
    for key, tensor in read.items():
        for wrong in ({key: tensor[:-1]}, {key: tensor[..., None]}):
            with pytest.raises(ValueError, match=key):
                restore_loop(other, world, read | wrong, meta)
        with pytest.raises(KeyError):
            restore_loop(other, world, dict(item for item in read.items() if item[0] != key), meta)
    after = saved(other)
    assert after[1] == before[1] and all(torch.equal(before[0][key], x) for key, x in after[0].items()), "unchanged"
    restore_loop(other, world, read, meta)
    assert_same(loop, other)
    assert torch.equal(other.agent.policy(1).greedy(world.start), loop.agent.policy(1).greedy(world.start))


@every
def test_its_operations_are_those_that_torch_counts(name: str) -> None:
    model = TrainModel(networks=6, hidden=12, layers=3, weight_decay=(0.1,) * 4)
    settings = policy_settings(name, penalty="none", steps_per_epoch=3, rollout_every=3)
    shapes = Shapes(obs_dim=9, act_dim=4, rows=300)
    for members in (1, 3):
        with taking(settings, shapes, members, torch.device("cpu"), model) as (loop, take, steps):
            loop.step = 0
            take()  # what is done once per rollout is in the first call only
            operations = update_flops(model, settings, shapes.obs_dim, shapes.act_dim)
            assert steps == 3 and counted(take) == members * steps * operations > 0


def settings_of(name: str) -> dict[str, Any]:
    """Those that only this algorithm has, or few others."""
    every_field = with_algorithm(TrainPolicy, name).model_fields
    return {key: field for key, field in every_field.items() if key not in TrainPolicy.model_fields}


def method_of(name: str) -> str:
    """A method that learns by this algorithm: that of its name where there is one."""
    methods = [name] if name in method_names() else method_names()
    return next(one for one in methods if resolve(TrainPolicy, flags={"method": one}).settings.algorithm == name)


def out_of_bounds(field: Any) -> str:
    """What a setting cannot be. Every number has a bound."""
    if field.annotation not in (int, float):
        return "nonsense"
    kind = type(field.metadata[0]).__name__.lower()
    return str(getattr(field.metadata[0], kind) + {"ge": -1, "gt": 0, "le": 1, "lt": 0}[kind])


def another_value(name: str, key: str, field: Any) -> Any:
    """What it can be beside its default."""
    default = field.default
    values = get_args(field.annotation) or [
        field.annotation(value) for value in (default / 2, default * 2, default + 1, 0)
    ]
    return next(value for value in values if value != default and accepted(name, {key: str(value)}))


def accepted(name: str, flags: dict[str, str]) -> bool:
    try:
        resolve(TrainPolicy, flags={"method": method_of(name), **flags})
    except MopoError:
        return False
    return True


@every
def test_every_setting_is_a_flag_and_a_key_of_a_settings_file(name: str, mopo: Any, tmp_path: Path) -> None:
    command: Any = typer.main.get_command(app).commands["train-policy"]  # type: ignore[attr-defined]
    command.parse_args(command.context_class(command), [])  # the options of single algorithms join then
    options = {flag: option for option in command.params for flag in option.opts}
    settings, line = settings_of(name), f"train-policy --run {tmp_path / 'run'} --dataset hopper-medium"
    assert {part.name for part in fields(load(name).settings)} <= with_algorithm(TrainPolicy, name).model_fields.keys()
    values = {key: another_value(name, key, field) for key, field in settings.items()}
    for key, field in settings.items():
        flag = f"--{key.replace('_', '-')}"
        assert field.description and "default" in options[flag].help
        outcome = mopo(f"{line} --method {method_of(name)} {flag} {out_of_bounds(field)}")
        assert outcome.code == 2 and f"{flag} must be" in outcome.err, outcome
    flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in values.items())
    outcome = mopo(f"{line} --method {method_of(name)} {flags}")
    assert outcome.code == 4 and " yet." in outcome.err, "nothing is missing but data and a model"
    file = tmp_path / "mine.yaml"
    keys = {"method": method_of(name)} | {key.replace("_", "-"): value for key, value in values.items()}
    file.write_text("train-policy:\n" + "".join(f"  {key}: {value}\n" for key, value in keys.items()))
    resolved = resolve(TrainPolicy, config_file=file)
    learner = learner_settings(load(name).settings, resolved.settings, ACT)
    assert {key: getattr(learner, key) for key in values} == values
    assert all(resolved.origins[key] == str(file) for key in values)


@every
def test_a_method_learns_by_it(name: str) -> None:
    settings = resolve(TrainPolicy, flags={"method": method_of(name)}).settings
    learns_from = load(name).learns_from
    assert settings.algorithm == name and set(OWN[name]) <= {part.name for part in fields(load(name).settings)}
    assert settings.needs_model or learns_from in ("any", "real")
    assert settings.real_ratio == 1 or learns_from != "real"
