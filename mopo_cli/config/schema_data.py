"""The settings of ``mopo fetch-data``."""

from typing import Literal

from mopo_cli.config.fields import (
    JsonObject,
    Seed,
    Settings,
    Text,
    setting,
)


class FetchData(Settings):
    """Settings of ``mopo fetch-data``."""

    dataset: Text = setting(
        ..., "data to fetch: walker2d-medium, minari:mujoco/hopper/medium-v0, generate:ENV-ID:LEVEL, hiv, or a file"
    )
    env: Text | None = setting(
        None,
        "environment of a file, or of a Minari set that names none: Hopper-v5, or my_module:Tank-v0",
    )
    env_kwargs: JsonObject | None = setting(
        None, "keyword arguments of the environment, as JSON: '{\"level\": 2.0}' (with --env and generate: sets)"
    )
    columns: Text | None = setting(
        None,
        "columns of a file: obs=..., action=..., ... or a YAML file with them; entries of Dict observations (Minari)",
    )
    layout: Text | None = setting(
        None,
        "layout of the file, if mopo guesses wrong: groups, numbered, vector, padded, rllib, lists, lines, table or"
        " rows",
    )
    missing: Literal["refuse", "drop-rows", "split-episodes", "fill-forward"] = setting(
        "refuse",
        "rows with a missing value: refuse, leave out, end the episode there, or take the value before (files)",
    )
    termination: Text = setting(
        "auto",
        "when model episodes end: auto (the environment's rule), the name of a rule, none, or an expression such as"
        " 'abs(obs[1]) > 0.2 or step >= 100'",
    )
    reward: Text | None = setting(
        None,
        "the reward as an expression, such as '-abs(obs[0] - 70) - 0.1 * action[0]**2'",
    )
    history: int = setting(
        1,
        "steps joined into one observation, with the actions between them, for tasks where one does not show the state",
        ge=1,
    )
    relabel: Text | None = setting(None, "reward rule that replaces the rewards in the data", "MOPO §5.2")
    mirror: Text | None = setting(
        None,
        "server to download D4RL sets from (or MOPO_D4RL_MIRROR)",
    )
    transitions: int = setting(100_000, "transitions to record (generate: sets, but not replay levels)", ge=1)
    behaviour_steps: int = setting(
        1_000_000, "most training steps of the behaviour policy, the size of full-replay (generate: sets)", "D4RL", ge=1
    )
    medium_return: float | None = setting(
        None, "return at which the behaviour policy is medium; none: a third of the way from random to expert", "D4RL"
    )
    seed: Seed = setting(0, "seed of the behaviour policy and the simulator (generate: sets)")
