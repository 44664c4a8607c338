"""Everything the user sees: progress, tables and hints on stderr, results on stdout."""

from mopo_cli.report.console import Mode, Report

__all__ = ["Mode", "Report"]
