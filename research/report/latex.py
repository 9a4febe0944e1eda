"""A table as LaTeX, with the rules of booktabs."""

import re

from research.report.document import PUBLISHED, document
from research.report.table import Table
from research.report.texts import PLAIN, Layout, Style

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "''",  # \textquotedbl needs a T1 font
    "[": "{[}",  # LaTeX takes a bracket or a star after \\ or \midrule for an argument
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

_UNSET = frozenset("ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ")  # the font encoding of a plain document lacks them


def _escape(text: str) -> str:
    """Text that LaTeX sets as it is; a character that plain pdflatex has no glyph for becomes its code point."""

    def escaped(character: str) -> str:
        if character in _LATEX:
            return _LATEX[character]
        known = " " <= character <= "~" or ("À" <= character <= "ſ" and character not in _UNSET)
        return character if known else f"{{[}}U+{ord(character):04X}{{]}}"

    return re.sub("-(?=-)", "-{}", "".join(map(escaped, " ".join(text.split()))))  # two hyphens would become a dash


LATEX = Style(
    escape=_escape,
    name=_escape,
    best=lambda text: rf"\textbf{{{text}}}",
    second=lambda text: rf"\underline{{{text}}}",
    mark=lambda mark: rf"\textsuperscript{{{_escape(mark)}}}" if mark else "",
    power=lambda digits, exponent: rf"${digits}\times 10^{{{exponent}}}$",
    plus_minus=r"$\pm$",
    dash="---",
    better={"lower": r" $\downarrow$", "higher": r" $\uparrow$"},
)


def latex(table: Table, layout: Layout = PLAIN) -> str:
    r"""A `table` environment for `\input`, with its notes; the document needs the packages booktabs and graphicx."""
    texts = document(table, LATEX, layout)
    keys, metrics = len(texts.keys), len(texts.metrics)
    lines = [r"\toprule"]
    if table.column_keys:
        columns = [rf"\multicolumn{{{metrics}}}{{c}}{{{column}}}" for column in texts.columns]
        first = [keys + 1 + index * metrics for index in range(len(columns))]
        lines.append(_row([*[""] * keys, *columns]))
        lines.append(" ".join(rf"\cmidrule(lr){{{start}-{start + metrics - 1}}}" for start in first))
    heads = [*texts.keys, *texts.metrics * len(texts.columns)]
    lines += [_row(heads), r"\midrule", *map(_row, texts.models)]
    if texts.baselines:
        lines += [r"\midrule", *map(_row, texts.baselines)]
    published = []
    if texts.published:
        body = [r"\toprule", _row([*map(_escape, PUBLISHED)]), r"\midrule", *map(_row, texts.published), r"\bottomrule"]
        published = [r"\par\medskip", *_tabular("lllrrrl", body)]
    name = re.sub(r"[^A-Za-z0-9-]+", "-", table.runs.name)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{texts.caption}}}",
            rf"\label{{tab:{name}}}",
            *_tabular("l" * keys + "r" * (len(heads) - keys), [*lines, r"\bottomrule"]),
            *published,
            r"\par\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
            *(rf"{mark}{text}\par" for mark, text in [*texts.notes, *texts.sources, ("", texts.provenance)]),
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tabular(columns: str, lines: list[str]) -> list[str]:
    """A tabular, made smaller if it is wider than the text."""
    fit = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    return [fit, rf"\begin{{tabular}}{{{columns}}}", *lines, r"\end{tabular}}"]
