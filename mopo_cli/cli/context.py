"""What a stage needs of the command line: the run, its data set, the settings and their origins."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from mopo_cli.cli.options import Call
from mopo_cli.config.fields import DATA_FILE, Settings
from mopo_cli.config.presets import preset_names
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import SelectElites
from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.files.source_files import d4rl_set
from mopo_cli.data.registry import parse_dataset
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.stages.common.options import Options
from mopo_cli.store.atomic import sha256_file
from mopo_cli.store.lineage import StageRecord, read_lineage
from mopo_cli.store.run import RunFolder, dataset_slug, resolve_run

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Context:
    """The run a command works on, and the data set and preset that go with it."""

    call: Call
    run: RunFolder
    dataset: str | None
    preset: str | None

    def settle(self, stage: type[S], flags: Mapping[str, Any] | None = None) -> tuple[S, Options]:
        """A stage's settings, and the options that carry their origins. Raises what ``resolve`` raises."""
        return settle(self.call, stage, self.dataset, self.preset, flags, self.call.method, self.has_data_file)

    @cached_property
    def has_data_file(self) -> bool:
        """Whether the data are a file of the user's own, and not one that is D4RL's to the byte.

        A run that was made before this was recorded goes on as it began: there it is False.
        """
        record = fetched(self.run)
        if record is not None:
            return record.extra.get("kind") == DATA_FILE
        name = parse_dataset(self.dataset) if self.dataset else None
        if name is None or name.kind != "local" or name.path is None or not name.path.is_file():
            return name is not None and name.kind == "local"
        return d4rl_set(sha256_file(name.path), self.call.flags.get("columns")) is None

    def needs(self, stage: str, what: str) -> None:
        """Raises InputError, naming the command to run, when the run has no finished ``stage``."""
        if not any(key.split("/")[0] == stage for key in read_lineage(self.run)):
            raise InputError(f"The run {self.run.root} has no {what} yet.", hint=f"mopo {stage}{self._same_run()}")

    def fetch_if_missing(self) -> None:
        """Runs fetch-data when the run has no data yet, or their file is gone."""
        from mopo_cli.stages.fetch_data import run_fetch_data

        record = fetched(self.run)
        if record is None:
            flags = {"dataset": self.call.dataset} if self.call.dataset else {}
            settings, options = self.settle(FetchData, flags)
        elif all((self.run.root / file["path"]).exists() for file in record.outputs.values()):
            return
        else:
            settings = FetchData(**record.settings)
            options = replace(self.call.options, origins=record.extra.get("origins", {}))
        run_fetch_data(self.run, settings, options, self.call.report.without_hints())

    def select_elites_if_missing(self, method: str | None = None) -> None:
        """Runs select-elites, as ``method`` has it, when the run's model has no elites yet."""
        from mopo_cli.stages.select_elites import run_select_elites

        if "select-elites" not in read_lineage(self.run):
            settings, options = settle(self.call, SelectElites, self.dataset, self.preset, method=method)
            run_select_elites(self.run, settings, options, self.call.report.without_hints())

    def _same_run(self) -> str:
        if self.call.run:
            return f" --run {self.call.run}"
        return f" --dataset {self.call.dataset}" if self.call.dataset else ""


def open_context(call: Call) -> Context:
    """The run named by --run, --dataset, MOPO_RUN or the last command, with its data set and preset.

    The preset is --preset, else the one the data were fetched with; None leaves ``resolve`` to find one.
    Raises InputError when no run is named, or --run holds other data than --dataset says.
    """
    run = resolve_run(call.run, call.dataset)
    record = fetched(run)
    recorded = str(record.settings["dataset"]) if record else None
    if call.dataset:
        refuse_other_data(run, call.dataset)
    return Context(call, run, call.dataset or recorded, call.preset or _remembered_preset(record))


def refuse_other_data(run: RunFolder, dataset: str) -> None:
    """Raises InputError when ``run`` holds another data set than ``dataset``."""
    record = fetched(run)
    recorded = str(record.settings["dataset"]) if record else dataset
    if dataset_slug(dataset) != dataset_slug(recorded):
        raise InputError(
            f"The run {run.root} holds {recorded}, not {dataset}.",
            hint=f"mopo fetch-data --dataset {dataset} --run ANOTHER-FOLDER",
        )


def settle(
    call: Call,
    stage: type[S],
    dataset: str | None,
    preset: str | None,
    flags: Mapping[str, Any] | None = None,
    method: str | None = None,
    data_file: bool = False,
) -> tuple[S, Options]:
    """A stage's settings, and the options that carry their origins. Raises what ``resolve`` raises."""
    resolved = resolve(
        stage,
        dataset=dataset,
        preset_name=preset,
        config_file=call.config,
        flags=flags,
        method=method,
        data_file=data_file,
    )
    return resolved.settings, replace(call.options, origins=resolved.origins)


def fetched(run: RunFolder) -> StageRecord | None:
    """The record of a run's fetch-data, None when it has no data yet. CorruptError if it names no data set."""
    record = read_lineage(run).get("fetch-data")
    if record is not None and "dataset" not in record.settings:
        raise CorruptError(f"{run.lineage} holds a damaged record of fetch-data.")
    return record


def _remembered_preset(record: StageRecord | None) -> str | None:
    """The preset that a run's data were fetched with: it remains the run's preset."""
    origins = record.extra.get("origins", {}) if record else {}
    names = {origin.removeprefix("preset ") for origin in origins.values() if origin.startswith("preset ")}
    return next((name for name in sorted(names) if name in preset_names()), None)
