"""``mopo presets settings [METHOD]``: every setting with its value, default and source."""

from typing import Any

from pydantic.fields import FieldInfo

from mopo_cli.cli.columns import columns
from mopo_cli.cli.options import show
from mopo_cli.config.learners import settings_of_all
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import STAGES, PolicyTraining

Row = dict[str, Any]

_METHOD_FREE = ("fetch-data", "ablate")  # stages that do not depend on a method


def method_rows(method: str) -> list[Row]:
    """A row per setting of a method, by stage. UsageError, listing the known ones, for an unknown method."""
    rows = []
    for stage, kind in STAGES.items():
        if stage not in _METHOD_FREE:
            resolved = resolve(kind, method=method)
            fields, values = type(resolved.settings).model_fields, resolved.settings.model_dump()
            rows += [_row(stage, name, fields[name], values[name], resolved.origins[name]) for name in fields]
    return rows


def setting_rows() -> list[Row]:
    """A row per setting, by stage; then those of single algorithms."""
    rows = []
    for stage, kind in STAGES.items():
        inherited = PolicyTraining.model_fields if stage == "ablate" else {}
        rows += [_row(stage, name, field) for name, field in kind.model_fields.items() if name not in inherited]
    for name, by_algorithm in settings_of_all().items():
        rows += [_row(f"train-policy, {algorithm}", name, field) for algorithm, (_, field) in by_algorithm.items()]
    return rows


def setting_text(rows: list[Row], names: tuple[str, ...]) -> str:
    """The cells ``names`` of the rows as text, a block per stage."""
    lines: list[str] = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        cells = [[row[name] for name in names] for row in rows if row["stage"] == stage]
        lines += ["", stage, *columns([names, *cells], indent="  ")]
    return "\n".join(lines[1:])


def _row(stage: str, name: str, field: FieldInfo, value: Any = None, origin: str = "default") -> Row:
    default = "required" if field.is_required() else show(field.default)
    extra = field.json_schema_extra
    return {
        "stage": stage,
        "setting": name.replace("_", "-"),
        "value": default if origin == "default" else show(value),
        "from": origin,
        "default": default,
        "source": extra.get("source", "") if isinstance(extra, dict) else "",
    }
