"""The methods that are algorithms of their own: the settings of their papers, or of the code that came with them."""

from typing import Any

import pytest

from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.errors import UsageError

BRAC = {
    "actor_lr": 3e-5, "critic_lr": 1e-3, "real_ratio": 1, "divergence": "kl", "divergence_weight": 1,
    "behaviour_steps": 300_000, "warmup_steps": 20_000, "log_std_max": 0,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "awr": {
        "real_ratio": 1, "awr_temperature": 1, "weight_max": 20, "return_lambda": 0.95, "gamma": 0.99,
        "batch_size": 256,
    },
    "bear": {
        "actor_lr": 1e-4, "critic_lr": 3e-4, "real_ratio": 1, "mmd_threshold": 0.05, "mmd_kernel": "laplacian",
        "mmd_sigma": 20, "warmup_steps": 40_000, "behaviour_hidden": 750,
    },
    "brac-p": BRAC,
    "brac-v": BRAC,
    "combo": {
        "rho": "mix", "actions": 10, "lse": "full", "backup": "deterministic", "real_ratio": 0.5, "layers": 3,
        "rollout_actions": "policy", "actor_lr": 1e-4, "critic_lr": 3e-4, "alpha_lr": 1e-4, "target_entropy": None,
    },
    "cql": {
        "beta": 5, "actions": 10, "lse": "full", "backup": "deterministic", "layers": 3, "hidden": 256,
        "actor_lr": 1e-4, "critic_lr": 3e-4, "target_entropy": None,
    },
    "iql": {
        "real_ratio": 1, "actor_lr": 3e-4, "critic_lr": 3e-4, "expectile": 0.7, "inverse_temperature": 3,
        "weight_max": 100, "return_range": 1000, "actor_schedule": "cosine", "log_std_min": -5, "log_std_max": 2,
        "gamma": 0.99, "tau": 0.005, "batch_size": 256, "hidden": 256, "layers": 2, "epochs": 1000,
        "steps_per_epoch": 1000,
    },
    "mobile": {
        "mobile_samples": 10, "backup": "deterministic", "target_floor": "auto", "real_ratio": 0.05, "actor_lr": 1e-4,
        "alpha_lr": 1e-4, "epochs": 3000, "target_entropy": None,
    },
    "morel": {"h": 5, "real_ratio": 0.05, "pessimism": 3, "halt_penalty": 50, "halt_value": "absorbing"},
    "td3-bc": {
        "real_ratio": 1, "actor_lr": 3e-4, "critic_lr": 3e-4, "bc_alpha": 2.5, "policy_delay": 2, "target_noise": 0.2,
        "target_noise_clip": 0.5, "batch_size": 256, "hidden": 256, "layers": 2, "gamma": 0.99, "tau": 0.005,
    },
}  # fmt: skip
# (h, weight of the method's term) for the v2 sets: OfflineRL-Kit's README.
KIT = {
    "combo": {
        "halfcheetah-medium": (5, 0.5),
        "hopper-medium": (5, 5.0),
        "walker2d-medium": (1, 5.0),
        "halfcheetah-medium-replay": (5, 0.5),
        "hopper-medium-replay": (5, 0.5),
        "walker2d-medium-replay": (1, 0.5),
        "halfcheetah-medium-expert": (5, 5.0),
        "hopper-medium-expert": (5, 5.0),
        "walker2d-medium-expert": (1, 5.0),
    },
    "mobile": {
        "halfcheetah-random": (5, 0.5),
        "hopper-random": (5, 5.0),
        "walker2d-random": (5, 2.0),
        "halfcheetah-medium": (5, 0.5),
        "hopper-medium": (5, 1.5),
        "walker2d-medium": (5, 0.5),
        "halfcheetah-medium-replay": (5, 0.1),
        "hopper-medium-replay": (5, 0.1),
        "walker2d-medium-replay": (1, 0.5),
        "halfcheetah-medium-expert": (5, 2.0),
        "hopper-medium-expert": (5, 1.5),
        "walker2d-medium-expert": (1, 1.5),
    },
}
CASES = [
    *((method, dataset) for method in SETTINGS for dataset in KIT.get(method, {})),
    *((method, None) for method in SETTINGS if method not in ("cql", "mobile", "morel")),
    ("cql", "hopper-medium"),
    ("morel", "walker2d-medium-replay"),
]


@pytest.mark.parametrize(("method", "dataset"), CASES)
def test_a_method_has_the_settings_of_its_authors(method: str, dataset: str | None) -> None:
    settings = resolve(TrainPolicy, dataset=dataset, flags={"method": method}).settings
    wanted = SETTINGS[method] | {"algorithm": method, "penalty": "none"}
    assert {name: getattr(settings, name) for name in wanted} == wanted
    if dataset in KIT.get(method, {}):
        weight = {"combo": "beta", "mobile": "mobile_coefficient"}[method]
        assert (settings.h, getattr(settings, weight)) == KIT[method][dataset]


@pytest.mark.parametrize("method", ["awr", "bc", "bear", "brac-p", "brac-v", "cql", "iql", "td3-bc"])
def test_some_learn_from_the_data_alone(method: str) -> None:
    assert resolve(TrainPolicy, flags={"method": method}).settings.policy_name() == method
    with pytest.raises(UsageError, match=f"{method} learns from the data alone"):
        resolve(TrainPolicy, flags={"method": method, "real_ratio": "0.5"})
