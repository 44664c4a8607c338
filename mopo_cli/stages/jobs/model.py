"""The model of a run, trained here or by a job."""

from mopo_cli.config.schema import SelectElites, TrainModel
from mopo_cli.errors import FailedError
from mopo_cli.placing.engine import job_folder
from mopo_cli.report.console import Report
from mopo_cli.stages.common.inputs import dataset_path
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.published_policies import NOT_YET
from mopo_cli.stages.jobs.finished import discard_jobs, is_finished
from mopo_cli.stages.jobs.hand_out import PLANNED, HandOut
from mopo_cli.stages.jobs.job import jobs_of
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.stages.select_elites import run_select_elites
from mopo_cli.stages.train_model import run_train_model
from mopo_cli.store.atomic import plain, publish
from mopo_cli.store.lineage import hashes, read_lineage
from mopo_cli.store.run import RunFolder


def make_model(
    run: RunFolder,
    model: TrainModel,
    elites: SelectElites,
    options: Options,
    report: Report,
    hand_out: HandOut | None = None,
) -> bool:
    """Train the model of a run and select its elites, where that is not up to date; False where a job is yet to do so.

    FailedError where the job failed or, with --collect, has not been carried out; besides what the stages raise.
    """
    if hand_out is None:
        run_train_model(run, model, options, report)
    elif not _take_over(run, model, elites, options, report, hand_out):
        return False
    run_select_elites(run, elites, options, report)
    return True


def _take_over(
    run: RunFolder, model: TrainModel, elites: SelectElites, options: Options, report: Report, hand_out: HandOut
) -> bool:
    inputs = {"dataset": dataset_path(run)}
    with stage_envelope(run, "train-model", model.model_dump(), inputs, options, report) as stage:
        if stage.up_to_date:
            return True
        if (source := _finished(stage)) is None:
            why = hand_out.train_model(stage, elites)
            if why == PLANNED:
                return False
            raise FailedError(
                f"The model of {run.root} is missing: {'no job has trained it yet' if why == NOT_YET else why}"
            )
        record = read_lineage(source)["train-model"]
        outputs = {role: run.root / file["path"] for role, file in record.outputs.items()}
        for role, path in outputs.items():
            with publish(stage.out.stage(path)) as temporary:
                temporary.write_bytes((source.root / record.outputs[role]["path"]).read_bytes())
        stage.finish(outputs, {name: value for name, value in record.extra.items() if name != "origins"})
        discard_jobs(run, [source.root.name])
        return True


def _finished(stage: Stage) -> RunFolder | None:
    """The folder of the job that has trained the model of the stage."""
    for path, job in jobs_of(stage.run):
        same = job.stage == "train-model" and job.settings[0] == plain(stage.settings)
        if same and hashes(job.inputs) == hashes(stage.inputs) and is_finished(path, job):
            return RunFolder(job_folder(path))
    return None
