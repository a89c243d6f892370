"""Compare evaluated runs: scores by modality, their means, and what differs from a reference run."""

from custom.report.comparison import Comparison, compare
from custom.report.files import write_report
from custom.report.runs import METRICS, Run, parse_run, read_run

__all__ = ["METRICS", "Comparison", "Run", "compare", "parse_run", "read_run", "write_report"]
