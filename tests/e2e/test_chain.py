"""The README's commands as one types them, tiny: what they print, what they leave, and what a second run does."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from probes.forks import ended, forked

from mopo_cli.__main__ import main
from mopo_cli.dynamics.penalties import UNCERTAINTIES

DATASET = "generate:InvertedPendulum-v5:random"
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
STAGES = ("fetch-data", "train-model", "select-elites", "rollout", "train-policy", "evaluate", "ablate")
RUN = "runs/generate-InvertedPendulum-v5-random"
POLICY = "mopo_max-var_lam1_h5"


def readme_block(language: str, word: str) -> str:
    """The README's code block in ``language`` that holds ``word``."""
    fenced = (block.split("\n", 1) for block in README.split("```")[1::2])
    return next(text for name, text in fenced if name == language and word in text)


def readme_stages() -> list[str]:
    """The commands in the README's table of stages, with as many elites as the tiny model allows."""
    commands = re.findall(r"^\| `(mopo [^`]+)`", README, flags=re.MULTILINE)
    return [command.replace("--n 5", "--n 2") for command in commands]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Path:
    """A folder in which the README's seven stages have been run, tiny, each by a process."""
    folder = tmp_path_factory.mktemp("chain")
    shutil.copy(finished_run / "tiny.yaml", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOPO_HOME", str(folder / "cache"))
        patch.delenv("MOPO_RUN", raising=False)
        for command in readme_stages():
            run_tiny(folder, as_a_shell_reads(command))
    return folder


def as_a_shell_reads(command: str) -> list[str]:
    """The words that `mopo` is given."""
    script = f'mopo() {{ printf "%s\\0" "$@"; }}; {command}'
    done = subprocess.run(["bash", "-euc", script], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def run_tiny(folder: Path, words: list[str]) -> None:
    stage = words[0]
    words += ["--config", "tiny.yaml", "--json"] + ["--threads", "1"] * (stage != "fetch-data")
    with (folder / f"{stage}.out").open("w") as out, (folder / f"{stage}.err").open("w") as err:
        assert ended(forked(lambda: main(words), cwd=folder, stdout=out, stderr=err)).code == 0


@pytest.fixture
def in_chain(chain: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(chain)
    monkeypatch.setenv("MOPO_HOME", str(chain / "cache"))
    return chain


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_prints_one_json_object_and_nothing_else(chain: Path, stage: str) -> None:
    result = json.loads((chain / f"{stage}.out").read_text())
    assert result["stage"].split("/")[0] == stage
    assert not result["up_to_date"] and result["wall_seconds"] > 0
    for path in result["outputs"].values():
        assert (chain / path).is_file()
    assert (chain / f"{stage}.err").read_text() == ""


def test_the_run_folder_is_as_the_readme_draws_it(chain: Path) -> None:
    lines = readme_block("", "run.json").replace("NAME", "max-var+none_lam1+5_h5").splitlines()
    assert lines[0].rstrip("/") == RUN
    drawn = {line.split()[0].split("/")[0] for line in lines[1:]}
    # Only a method that wants another model, and other commands, leave these.
    seldom = {"variants", "exports"}
    assert {path.name for path in (chain / RUN).iterdir()} == (drawn - seldom) | {".lock"}
    assert seldom < drawn
    for line in lines[1:]:
        assert (chain / RUN / line.split()[0]).exists() or line.split("/")[0].strip() in seldom, line
    for cell in ("mopo_max-var_lam1_h5", "mopo_max-var_lam5_h5", "mopo_none_h5"):
        for seed in (0, 1, 2):
            assert (chain / RUN / f"ablations/max-var+none_lam1+5_h5/cells/{cell}/seed-{seed}").is_dir()


def test_the_numbers_are_of_what_was_asked_for(chain: Path) -> None:
    results = {stage: json.loads((chain / f"{stage}.out").read_text()) for stage in STAGES}
    assert results["fetch-data"]["transitions"] == 2000
    assert [len(elites) for elites in results["select-elites"]["elites"].values()] == [2]
    evaluation = results["evaluate"]
    assert (evaluation["episodes"], evaluation["seeds"]) == (10, [0, 1, 2])
    # A step upright is worth 1, and a thousand end the episode.
    assert all(1 <= value <= 1000 for value in evaluation["return_per_seed"].values())
    with h5py.File(chain / RUN / "rollouts/uniform_h5.h5") as file:
        assert len(file["rewards"]) == results["rollout"]["rows"] <= 5 * 200
        assert set(file["uncertainty"]) == {*UNCERTAINTIES}


def test_a_second_run_finds_every_stage_up_to_date(in_chain: Path, mopo: Any, contents: Any) -> None:
    before = contents(in_chain)
    for line in readme_stages():
        stage = line.split()[1]
        outcome = mopo(f"{line.removeprefix('mopo')} --config tiny.yaml --json")
        assert outcome.code == 0
        first = json.loads((in_chain / f"{stage}.out").read_text())
        again = json.loads(outcome.out)
        assert again["up_to_date"] and again["outputs"] == first["outputs"]
    assert "up to date" in mopo(f"select-elites --dataset {DATASET} --n 2 --config tiny.yaml").err
    assert contents(in_chain) == before


def test_show_explains_everything_that_was_made(in_chain: Path, mopo: Any) -> None:
    made = [path for path in Path(RUN).rglob("*") if path.suffix in (".json", ".h5", ".safetensors")]
    made += [Path(RUN), *Path("cache").rglob("*.h5")]
    assert len(made) > 20
    for path in made:
        outcome = mopo(f"show {path}")
        assert outcome.code == 0 and outcome.err == "", path
        assert json.loads(mopo(f"show {path} --json").out)["kind"] in outcome.out
    text = mopo(f"show {RUN}/policies/{POLICY}/seed-2/policy.safetensors").out
    assert "seed: 2" in text and f"train-policy/{POLICY}: made" in text
    settings = dict(line.split()[:2] for line in text.splitlines() if len(line.split()) == 3)
    assert settings["steps-per-epoch"] == "50"
    for setting, origin in (("lam", "flag"), ("epochs", "tiny.yaml"), ("gamma", "default")):
        assert re.search(rf"^\s+{setting}\s+\S+\s+{origin}$", text, flags=re.MULTILINE)


def test_the_readmes_other_commands_work(in_chain: Path, mopo: Any) -> None:
    with h5py.File(next(Path("cache").rglob("*.h5"))) as file:
        columns = {name: file[name][...] for name in file}
    exec(readme_block("python", "h5py"), columns)
    line = readme_block("sh", "my-logs.h5").removeprefix("mopo").replace("Hopper", "InvertedPendulum")
    done = mopo(f"{line} --json")
    assert done.code == 0 and json.loads(done.out)["transitions"] == 2000
    assert Path("runs/current").read_text() == "my-logs\n"
    assert mopo(f"fetch-data --dataset {DATASET} --config tiny.yaml").code == 0

    listing = mopo("presets ls").out
    assert listing.startswith("quickstart ") and "walker2d-medium " in listing
    assert mopo("presets show quickstart").out.startswith("#")


def test_run_does_all_stages_and_equals_them_one_by_one(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mopo: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    config = finished_run / "tiny.yaml"
    whole = mopo(f"run {DATASET} --config {config} --threads 1 --run whole --json")
    assert whole.code == 0 and whole.err == ""
    result = json.loads(whole.out)
    assert list(result["stages"]) == list(STAGES[:-1])
    for name in (
        "model/ensemble.safetensors",
        "elites.json",
        "policies/mopo_max-var_lam1_h2/seed-0/policy.safetensors",
    ):
        assert (tmp_path / "whole" / name).read_bytes() == (finished_run / "runs/tiny" / name).read_bytes()
    done = mopo(f"run {DATASET} --config {config} --threads 1 --run whole")
    assert done.err.count("up to date") == 6
    assert "policy learned from these data alone returns" in done.out


def test_run_takes_a_preset_and_a_file_that_beats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mopo: Any, finished_run: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    config = (finished_run / "tiny.yaml").read_text().replace("evaluate: {episodes: 2}", "evaluate: {episodes: 3}")
    Path("mine.yaml").write_text(config)
    outcome = mopo("run quickstart --config mine.yaml --threads 1 --json")
    assert outcome.code == 0
    stages = json.loads(outcome.out)["stages"]
    assert stages["evaluate"]["seeds"] == [0, 1, 2]  # the preset's
    assert stages["evaluate"]["episodes"] == 3  # the file's
    assert Path("runs/current").read_text() == "quickstart\n"
    recorded = json.loads(Path("runs/quickstart/run.json").read_text())["stages"]
    origins = recorded[stages["train-policy"]["stage"]]["extra"]["origins"]
    assert (origins["seeds"], origins["epochs"], origins["rollouts"]) == ("preset quickstart", "mine.yaml", "default")


def test_a_policy_is_learnt_from_a_rollout_file_without_the_model(tiny_run: Path, mopo: Any) -> None:
    for path in (*tiny_run.glob("model/*"), tiny_run / "elites.json"):
        path.unlink()
    line = "train-policy --config tiny.yaml --threads 1 --json --name offline --rollouts"
    outcome = mopo(f"{line} {tiny_run}/rollouts/uniform_h2.h5")
    assert outcome.code == 0, outcome.err
    inputs = json.loads((tiny_run / "run.json").read_text())["stages"]["train-policy/offline"]["inputs"]
    assert set(inputs) == {"dataset", "rollouts"}
    assert mopo("evaluate --policy offline --episodes 1 --json").code == 0


def test_a_policy_seed_uses_the_model_of_that_seed(tiny_run: Path, mopo: Any) -> None:
    from mopo_cli.store.checkpoint import load_tensors

    train = "train-policy --config tiny.yaml --threads 1 --epochs 1"
    assert mopo("train-model --config tiny.yaml --threads 1 --seed-list 0,3").code == 0
    assert mopo("select-elites --config tiny.yaml").code == 0
    assert mopo(f"{train} --seed-list 3,0 --name both").code == 0
    made_with = {seed: load_tensors(tiny_run / f"policies/both/seed-{seed}/policy.safetensors") for seed in (0, 3)}
    assert {seed: meta["model_seed"] for seed, (_, meta) in made_with.items()} == {0: 0, 3: 3}
    assert mopo(f"{train} --seed-list 1 --name lone").code == 4

    # The seed's own model decides: with that one alone, the policy is the same.
    assert mopo("train-model --config tiny.yaml --threads 1 --seed-list 3").code == 0
    assert mopo("select-elites --config tiny.yaml").code == 0
    assert mopo(f"{train} --seed-list 3,0 --name one").code == 0
    alone = {seed: load_tensors(tiny_run / f"policies/one/seed-{seed}/policy.safetensors") for seed in (0, 3)}
    assert {seed: meta["model_seed"] for seed, (_, meta) in alone.items()} == {0: 3, 3: 3}
    same = {seed: _equal(made_with[seed][0], alone[seed][0]) for seed in (0, 3)}
    assert same == {0: False, 3: True}


def _equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_command_without_a_name_works_on_the_run_named_last(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elites(more: str) -> Any:
        return json.loads(mopo(f"select-elites --json --n 1 {more}").out)

    assert mopo(f"fetch-data --dataset {DATASET} --transitions 500 --run other").code == 0
    assert mopo("select-elites").code == 4  # the run named last has no model
    assert elites(f"--run {tiny_run}")["run"] == str(tiny_run)
    assert elites("--metric nll")["run"] == str(tiny_run)
    monkeypatch.setenv("MOPO_RUN", "other")
    assert mopo("select-elites").code == 4
    monkeypatch.delenv("MOPO_RUN")
    assert elites("")["run"] == str(tiny_run)  # MOPO_RUN is not remembered


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("stage", ["train-model", "rollout", "train-policy", "evaluate", "ablate"])
def test_a_device_that_is_not_there_is_told(tiny_run: Path, refuses: Any, stage: str) -> None:
    for said in ("Error: --device cuda is not usable here", "\nTry: --device cpu\n"):
        refuses(f"{stage} --config tiny.yaml --device cuda --force", 2, said)
