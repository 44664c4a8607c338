"""Tables in bulk of which the truth is known; see `campaign.py`.

Each must be read right, or refused with the right reason where a fault was planted: nothing may be wrong in silence.
"""

import argparse
import re
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
from faults.table_faults import ARRAY_FAULTS, FAULTS, make_array_fault, make_fault
from faults.table_layouts import LAYOUTS, make_layout
from faults.tables import Case, make_table
from faults.truth import difference

from mopo_cli.data.files.layouts import open_log
from mopo_cli.data.files.local import load_local
from mopo_cli.data.files.read_columns import Reading
from mopo_cli.data.validate import validate
from mopo_cli.errors import InputError, MopoError

_ALL_FAULTS = (*FAULTS, *ARRAY_FAULTS)


def make(seed: int, number: int, folder: Path) -> Case:
    """The log with that number: of ten, seven tables, one in another layout and two with a fault."""
    chance = np.random.default_rng([seed, number])
    place, kind = folder / str(number), number % 10
    if kind < 7:
        return make_table(chance).save(place)
    if kind == 7:
        return make_layout(chance, place, LAYOUTS[number // 10 % len(LAYOUTS)])
    fault = _ALL_FAULTS[(number // 10 * 2 + kind) % len(_ALL_FAULTS)]
    return make_fault(chance, place, fault) if fault in FAULTS else make_array_fault(chance, place, fault)


def wrong(case: Case) -> str:
    """What is wrong with how a log is read or refused; empty where nothing is."""
    try:
        if case.layout and (layout := open_log(case.paths).layout) != case.layout:
            return f"taken for the layout {layout}, not {case.layout}"
        sha256 = ["0" * 64] * len(case.paths)
        transitions, info = load_local(case.paths, None, sha256, Reading(case.columns, missing=case.missing), "log")
        validate(transitions, info)
    except InputError as error:
        said = f"{error} {error.hint}"
        lacking = [pattern for pattern in case.refusal if not re.search(pattern, said)]
        return f"refused without {lacking}: {said}" if lacking or not case.refusal else ""
    except MopoError as error:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return traceback.format_exc()
    return "read despite its fault" if case.refusal else difference(case.pieces, transitions, info.observation_offset)


def tables(options: argparse.Namespace) -> int:
    """Make and read so many logs, or only some by their numbers; 1 where any was wrong."""
    folder = Path(tempfile.mkdtemp(prefix="mopo-tables-"))
    counts, ways = Counter[str](), Counter[tuple[str, str]]()
    for number in options.only or range(options.count):
        case = make(options.seed, number, folder)
        fault = wrong(case)
        outcome = "wrong" if fault else "refused rightly" if case.refusal else "read right"
        counts[outcome] += 1
        ways.update((way, outcome) for way in case.ways)
        if fault:
            print(f"{number}: {case.paths[0]} --columns {case.columns!r} ({', '.join(case.ways)}): {fault}", flush=True)
    row = "{:32} {:>6} {:>10} {:>15} {:>6}"
    print(row.format("way", "tried", "read right", "refused rightly", "wrong"))
    for way in sorted({way for way, _ in ways}):
        right, refused, faults = (ways[way, outcome] for outcome in ("read right", "refused rightly", "wrong"))
        print(row.format(way, right + refused + faults, right, refused, faults))
    print(
        f"seed {options.seed}: {counts.total()} tried, {counts['read right']} read right, "
        f"{counts['refused rightly']} refused rightly, {counts['wrong']} wrong"
    )
    return int(counts["wrong"] > 0)
