"""Verdicts made visible: a terminal matrix, JSON, an HTML page, a badge."""

from eventpact_contracts.reports.badge import badge
from eventpact_contracts.reports.document import document
from eventpact_contracts.reports.page import page
from eventpact_contracts.reports.summary import could_not_run, exit_code, headline

__all__ = ["badge", "could_not_run", "document", "exit_code", "headline", "page"]
