"""Whether settings agree with recorded ones, which may be older than some of the settings."""

from collections.abc import Mapping
from typing import Any

from mopo_cli.config.learners import fitting
from mopo_cli.config.schema import STAGES, TrainPolicy
from mopo_cli.store.atomic import plain
from mopo_cli.store.documents import as_key, present_names

_NAMES = ("method", "name")

NOT_OF_A_SEED = (*_NAMES, "seeds", "seed_list")
"""The settings of train-policy that a seed's policy does not depend on."""


def setting_defaults(key: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of settings that an older record lacks, as in JSON; ``key`` is the stage's, as "train-policy/NAME".

    It is the present default, or what was done before there was such a setting, where the setting says it ("before").
    """
    fields = fitting(STAGES[key.split("/")[0]], settings).model_fields
    optional = {name: fields[name] for name in settings if name in fields and not fields[name].is_required()}
    extras = {name: setting.json_schema_extra for name, setting in optional.items()}
    past = {name: extra["before"] for name, extra in extras.items() if isinstance(extra, dict) and "before" in extra}
    return {name: plain(setting.default) for name, setting in optional.items()} | past


def changed_settings(key: str, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings of a stage that are not as ``recorded``: by name, in order, the value then and the one now.

    A setting that did not exist when the record was made counts as `setting_defaults` says.
    """
    present = plain(dict(now))
    then = {**setting_defaults(key, present), **plain(present_names(key, recorded))}
    pairs = {name: (then.get(name), present.get(name)) for name in sorted({*then, *present})}
    return {name: (before, after) for name, (before, after) in pairs.items() if before != after}


def other_training(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The `changed_settings` of train-policy by which a seed's policy is another: not its name, nor other seeds."""
    changed = changed_settings("train-policy", recorded, now)
    return {name: pair for name, pair in changed.items() if name not in NOT_OF_A_SEED}


def same_policies(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two settings of train-policy train the same policies, of the same seeds."""
    return changed_settings("train-policy", recorded, now).keys() <= {*_NAMES}


def what_trains(settings: TrainPolicy) -> str:
    """The settings that `same_policies` compares, as text: it is the same where they train the same policies."""
    return settings.model_dump_json(exclude={*_NAMES})


def listed(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Changed settings as text: ``lam 1.0 -> 5.0, gamma 0.99 -> 0.9``."""
    return ", ".join(f"{as_key(name)} {before} -> {now}" for name, (before, now) in changed.items())
