"""One question of the table alone."""

from collections.abc import Callable

from research.evaluation import STUDIES, Findings, Subject


def ask(subject: Subject, *studies: Callable[[Subject, Findings], None]) -> Findings:
    """What these studies find, of those that apply."""
    findings = Findings()
    for row in STUDIES:
        if row.study in studies and row.applies(subject):
            row.study(subject, findings)
    return findings
