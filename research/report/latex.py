"""A table as LaTeX, with the rules of booktabs."""

import re

from research.report.caption import caption, notes, provenance
from research.report.render import PLAIN, PUBLISHED, Layout, Style, column_name, header, published_rows, rows, sources
from research.report.table import Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "''",  # \textquotedbl needs a T1 font
    "[": "{[}",  # after \\ and \midrule a bracket or a star would be an argument
    "]": "{]}",
    "*": "{*}",
    "—": r"\textemdash{}",
    "–": r"\textendash{}",
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "§": r"\S{}",
    "¶": r"\P{}",
    "×": r"$\times$",
} | {character: f"\\{character}" for character in "_%&#${}"}

_UNSET = frozenset("ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ")  # not in the font encoding of a plain document


def _escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is; a character that plain pdflatex has no glyph for becomes its code point."""

    def one(character: str) -> str:
        if character in _LATEX:
            return _LATEX[character]
        known = " " <= character <= "~" or ("À" <= character <= "ſ" and character not in _UNSET)
        return character if known else f"{{[}}U+{ord(character):04X}{{]}}"

    return re.sub("-(?=-)", "-{}", "".join(map(one, " ".join(text.split()))))  # two hyphens would join to a dash


LATEX = Style(
    escape=_escape_latex,
    best=lambda text: rf"\textbf{{{text}}}",
    second=lambda text: rf"\underline{{{text}}}",
    mark=lambda mark: rf"\textsuperscript{{{_escape_latex(mark)}}}" if mark else "",
    power=lambda digits, exponent: rf"${digits}\times 10^{{{exponent}}}$",
    plus_minus=r"$\pm$",
    dash="---",
    better={"lower": r"$\downarrow$", "higher": r"$\uparrow$"},
)


def latex(table: Table, layout: Layout = PLAIN) -> str:
    r"""A `table` environment for `\input`, notes beneath; the document needs the packages booktabs and graphicx."""
    models, exact = rows(table, LATEX, layout)
    keys = max(1, len(table.row_keys))
    width = len(table.metrics)
    head = [_escape_latex(key) for key in table.row_keys] or [""]
    head += [header(metric, LATEX) for _ in table.columns for metric in table.metrics]
    lines = [r"\toprule"]
    if table.column_keys:
        groups = [
            rf"\multicolumn{{{width}}}{{c}}{{{_escape_latex(column_name(table, column))}}}" for column in table.columns
        ]
        lines.append(" & ".join([*[""] * keys, *groups]) + r" \\")
        first = [keys + 1 + index * width for index in range(len(table.columns))]
        lines.append(" ".join(rf"\cmidrule(lr){{{start}-{start + width - 1}}}" for start in first))
    lines += [" & ".join(head) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in models]
    if exact:
        lines += [r"\midrule", *(" & ".join(row) + r" \\" for row in exact)]
    lines.append(r"\bottomrule")
    beside = _listed([*notes(table), *sources(table), ("", provenance(table))])
    name = re.sub(r"[^A-Za-z0-9-]+", "-", table.runs.name)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape_latex(caption(table, layout.parts) + layout.words)}}}",
            rf"\label{{tab:{name}}}",
            *_tabular("l" * keys + "r" * (len(head) - keys), lines),
            *_published(table, layout),
            r"\par\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
            *beside,
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _published(table: Table, layout: Layout) -> list[str]:
    """A second tabular: ours beside what others published."""
    if not table.published:
        return []
    head, body = list(map(_escape_latex, PUBLISHED)), published_rows(table, LATEX, layout)
    lines = [" & ".join(row) + r" \\" for row in body]
    top = [r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    return [r"\par\medskip", *_tabular("lllrrrl", [*top, *lines, r"\bottomrule"])]


def _tabular(columns: str, lines: list[str]) -> list[str]:
    """A tabular, made smaller where it would be wider than the text."""
    fit = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    return [fit, rf"\begin{{tabular}}{{{columns}}}", *lines, r"\end{tabular}}"]


def _listed(texts: list[tuple[str, str]]) -> list[str]:
    return [rf"{LATEX.mark(mark)}{_escape_latex(text)}\par" for mark, text in texts]
