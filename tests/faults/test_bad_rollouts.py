"""Rollout files made in another form than the policy is to be learned in: refused by the name of the flag."""

from pathlib import Path
from typing import Any

import h5py
import pytest
from probes.runs import OTHERWISE, record_anew

from mopo_cli.config.schema import Imagination

LINE = "train-policy --config tiny.yaml --threads 1 --epochs 1 --name again --rollouts runs/tiny/rollouts/uniform_h2.h5"


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_file_made_in_another_form_is_refused_by_the_flag_s_name(tiny_run: Path, refuses: Any, name: str) -> None:
    flag, value = name.replace("_", "-"), OTHERWISE[name]
    default = Imagination.model_fields[name].default
    said = f"rollouts/uniform_h2.h5 was made with --{flag} {default}, not {value}."
    refuses(f"{LINE} --{flag} {value}", 4, said)


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_file_made_in_that_form_is_taken_and_the_default_refused(
    tiny_run: Path, refuses: Any, mopo: Any, name: str
) -> None:
    flag, value = name.replace("_", "-"), OTHERWISE[name]
    assert mopo(f"rollout --config tiny.yaml --threads 1 --{flag} {value}").code == 0
    with h5py.File(tiny_run / "rollouts/uniform_h2.h5") as file:
        assert {key: file.attrs[key].decode() for key in OTHERWISE} == {
            key: value if key == name else field.default for key, field in Imagination.model_fields.items()
        }
    refuses(LINE, 4, f"was made with --{flag} {value}, not {Imagination.model_fields[name].default}.")
    done = mopo(f"{LINE} --{flag} {value}")
    assert done.code == 0, done.err


def test_a_file_from_before_these_settings_counts_as_made_with_their_defaults(
    tiny_run: Path, mopo: Any, refuses: Any
) -> None:
    with h5py.File(tiny_run / "rollouts/uniform_h2.h5", "r+") as file:
        for name in (*OTHERWISE, "content_sha256"):
            del file.attrs[name]
    record_anew(tiny_run)
    assert mopo(LINE).code == 0
    refuses(f"{LINE} --name other --penalty-networks elite", 4, "was made with --penalty-networks all, not elite")


def test_only_the_columns_of_the_penalty_in_use_are_needed(tiny_run: Path, refuses: Any, mopo: Any) -> None:
    path = tiny_run / "rollouts/uniform_h2.h5"
    with h5py.File(path, "r+") as file:
        file["uncertainty/of-another-version"] = file["uncertainty/ens"][()]
        for name in [*file["uncertainty"]]:
            if name not in ("max-var", "of-another-version"):
                del file[f"uncertainty/{name}"]
        del file.attrs["content_sha256"]
    record_anew(tiny_run)
    for penalty in ("max-var", "none"):
        done = mopo(f"{LINE} --force --penalty {penalty}")
        assert done.code == 0, done.err
    refuses(
        f"{LINE} --force --penalty ens", 4, f"{path.relative_to(tiny_run.parent.parent)} has no column uncertainty/ens"
    )
    assert "mopo rollout --force" in mopo(f"{LINE} --force --penalty ens").err
    assert mopo("rollout --config tiny.yaml --threads 1 --force").code == 0
    assert mopo(f"{LINE} --force --penalty ens").code == 0


def test_the_oracle_s_penalty_is_in_no_file(tiny_run: Path, refuses: Any, mopo: Any) -> None:
    refuses(f"{LINE} --penalty oracle", 4, "has no column uncertainty/oracle")
    assert "leave --rollouts out" in mopo(f"{LINE} --penalty oracle").err
