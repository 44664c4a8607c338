"""Whether settings agree with recorded ones, which may be older than some of the settings."""

from collections.abc import Collection, Mapping
from typing import Any

from mopo_cli.config.learners import fitting
from mopo_cli.config.schema import STAGES
from mopo_cli.store.atomic import plain
from mopo_cli.store.documents import present_names


def setting_defaults(key: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of settings that an older record lacks, as in JSON; ``key`` is the stage's, as "train-policy/NAME".

    It is the present default, or what was done before there was such a setting, where the setting says it ("before").
    """
    fields = fitting(STAGES[key.split("/")[0]], settings).model_fields
    optional = {name: fields[name] for name in settings if name in fields and not fields[name].is_required()}
    extras = {name: setting.json_schema_extra for name, setting in optional.items()}
    past = {name: extra["before"] for name, extra in extras.items() if isinstance(extra, dict) and "before" in extra}
    return {name: plain(setting.default) for name, setting in optional.items()} | past


def same_settings(
    stage: str, recorded: Mapping[str, Any], now: Mapping[str, Any], ignore: Collection[str] = ()
) -> bool:
    """Whether two sets of a stage's settings agree in all but ``ignore``.

    A setting that did not exist when the one was recorded counts as `setting_defaults` says.
    """
    present = plain(dict(now))
    then = {**setting_defaults(stage, present), **plain(present_names(stage, recorded))}
    return all(then.get(name) == present.get(name) for name in {*then, *present} - {*ignore})
