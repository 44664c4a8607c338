"""How a stage is executed, apart from what it computes."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """How to execute a stage; none of it is part of what the stage computes.

    ``log`` names the sinks that get the metrics besides metrics.jsonl (`report.metrics.SINKS`).
    ``origins`` says where each setting's value came from (default, preset NAME, a file, flag), for run.json.
    ``save_seconds`` is the time between checkpoints; None: as usual.
    """

    device: str = "auto"
    threads: int | None = None
    engine: str = "auto"
    products: str = "auto"
    log: tuple[str, ...] = ()
    force: bool = False
    allow_mismatch: bool = False
    origins: dict[str, str] = field(default_factory=dict)
    save_seconds: float | None = None
