"""DROP's settings on D4RL's sets: those of its authors' configurations (eta, h, form, clip, rate, norm, steps)."""

from typing import Any

import pytest

from mopo_cli.config.presets import preset_dataset, preset_names
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import TrainPolicy

NAMES = ("eta", "h", "ratio_form", "ratio_min", "ratio_max", "dice_lr", "dice_norm", "dice_steps")
CONFIGURATIONS: dict[str, tuple[Any, ...]] = {
    "halfcheetah-random": (0.5, 5, "log", 0.01, 10, 1e-4, 0.1, 400),
    "halfcheetah-medium": (1.0, 5, "log", 0.01, 10, 1e-4, 0.1, 400),
    "halfcheetah-medium-replay": (1.0, 5, "log", 0.01, 10, 1e-4, 1.0, 400),
    "halfcheetah-medium-expert": (0.1, 5, "log", 0.01, 50, 1e-4, 0.5, 200),
    "hopper-random": (1.0, 5, "tanh", 0.01, 10, 1e-4, 0.1, 400),
    "hopper-medium": (5.0, 5, "log", 0.01, 10, 1e-4, 0.1, 400),
    "hopper-medium-replay": (1.0, 5, "log", 0.01, 10, 1e-4, 0.1, 400),
    "hopper-medium-expert": (5.0, 5, "log", 0.01, 10, 1e-4, 0.1, 400),
    "walker2d-random": (1.0, 1, "log", 0.01, 50, 1e-3, 0.1, 600),
    "walker2d-medium": (0.1, 5, "tanh-difference", 0.01, 10, 1e-4, 0.1, 400),
    "walker2d-medium-replay": (2.0, 1, "log", 0.01, 50, 1e-4, 0.1, 600),
    "walker2d-medium-expert": (5.0, 1, "tanh-difference", 0.01, 10, 1e-4, 0.1, 500),
}


@pytest.mark.parametrize("dataset", CONFIGURATIONS)
def test_the_settings_are_those_of_the_authors(dataset: str) -> None:
    assert dataset in preset_names() and preset_dataset(dataset) == dataset
    settings = resolve(TrainPolicy, dataset=dataset, flags={"method": "drop"}).settings
    assert tuple(getattr(settings, name) for name in NAMES) == CONFIGURATIONS[dataset]
    # As everywhere: no penalty of MOPO's, and its share of real rows and target entropy on D4RL.
    assert (settings.algorithm, settings.penalty, settings.real_ratio) == ("drop", "none", 0.05)
    assert (settings.target_entropy, settings.dice_pretrain) == (-3, 1000)  # type: ignore[attr-defined]
    assert settings.policy_name() == f"drop_h{settings.h}"


@pytest.mark.parametrize("bad", [{"eta": -1}, {"ratio_form": "sqrt"}, {"ratio_min": 1.5}, {"ratio_max": 0.5}])
def test_what_means_nothing_is_refused(bad: dict[str, Any]) -> None:
    from mopo_cli.errors import UsageError

    with pytest.raises(UsageError):
        resolve(TrainPolicy, flags={"method": "drop", **bad})


def test_without_a_preset_the_defaults_hold() -> None:
    settings = resolve(TrainPolicy, dataset="./mine.h5", flags={"method": "drop"}).settings
    assert tuple(getattr(settings, name) for name in NAMES) == (1.0, 5, "log", 0.01, 10, 1e-4, 0.1, 400)
