"""Reports on saved runs, with plots and pictures of failures; and comparing runs."""

from __future__ import annotations

from mmembed.evaluation.reports.compare import Change, compare_runs
from mmembed.evaluation.reports.html import write_html
from mmembed.evaluation.reports.markdown import write_markdown
from mmembed.evaluation.reports.report import build_report

__all__ = ["Change", "build_report", "compare_runs", "write_html", "write_markdown"]
