"""One HTML page of a sweep: table, figures, runs and configs in a single file that needs no server and no network."""

import base64
import hashlib
import html
import os
import re
import shlex
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from research.metrics import direction
from research.report.collect import Run
from research.report.document import PUBLISHED, Document, Notes, document, newest, origins
from research.report.keys import distinct
from research.report.page_data import (
    configs,
    counted,
    extremes,
    link,
    page_data,
    plan,
    statuses,
    swept,
    swept_keys,
)
from research.report.table import Table
from research.report.texts import PLAIN, Layout, Style, plural, shown

if TYPE_CHECKING:
    from research.report.figures import Drawn

HERE = Path(__file__).parent
LARGEST_SVG = 300_000  # bytes; a larger figure is shown as PNG
LARGEST_DOWNLOAD = 20_000  # bytes of a file that is embedded for its download; larger files are linked
LARGEST_PICTURES = 3_000_000  # bytes of all pictures of single runs
LONGEST_REMARK = 30  # characters beside a mean; a longer remark stands below it
MOST_ROWS = 500  # of tables that the script does not make
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
PNG = b"\x89PNG\r\n\x1a\n"


def _breakable(text: str) -> str:
    """An escaped name that may be broken into lines where its parts meet."""
    return re.sub(r"([/.])(?=\w)", r"\1<wbr>", html.escape(text))


STYLE = Style(
    escape=html.escape,
    name=_breakable,
    best=lambda text: f"<strong>{text}</strong>",
    second=lambda text: f"<u>{text}</u>",
    mark=lambda mark: f"<sup>{html.escape(mark)}</sup>" if mark else "",
    power=lambda digits, exponent: f"{digits} × 10<sup>{exponent}</sup>",
    plus_minus="±",
    dash="—",
    better={
        "lower": '&nbsp;<span aria-hidden="true">↓</span><span class="unseen">, lower is better</span>',
        "higher": '&nbsp;<span aria-hidden="true">↑</span><span class="unseen">, higher is better</span>',
    },
)


def page(
    table: Table, folder: Path, figures: "Sequence[Drawn]", layout: Layout = PLAIN, output: Path | None = None
) -> str:
    """The page, for the folder `output` (by default `report` in the sweep folder): links to runs are relative to it.

    Everything that comes from the sweep is escaped. The content security policy lets only the page's own script and
    style run, and lets nothing be loaded.
    """
    folder = Path(folder)
    to_sweep = ".." if output is None else Path(os.path.relpath(folder.resolve(), output.resolve())).as_posix()
    runs = table.everything
    texts = document(table, STYLE, layout)
    script, style = ((HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    keys = swept_keys(runs)
    differing, common = configs(runs, keys)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = lambda text: Markup(_breakable(text))
    text = environment.get_template("page.html").render(
        name=runs.name,
        policy=f"default-src 'none'; img-src data:; style-src {_allowed(style)}; script-src {_allowed(script)}; "
        "base-uri 'none'; form-action 'none'",
        style=Markup(style),
        script=Markup(script),
        when=newest(runs),
        count=plural(len(runs), "run"),
        statuses=statuses(runs),
        origins=origins(runs),
        plan=plan(runs),
        swept=swept(runs, keys),
        table=_table(table, texts),
        caption=Markup(texts.caption),
        notes=_marked(texts.notes),
        published=[list(map(Markup, row)) for row in texts.published],
        published_head=PUBLISHED,
        sources=_marked(texts.sources),
        figures=[_figure(figure) for figure in figures],
        extremes=_extremes(table, folder, to_sweep),
        tensorboard=f"tensorboard --logdir {shlex.quote(folder.as_posix())}",
        runs=[(run, link(run, to_sweep)) for run in runs][:MOST_ROWS],
        keys=keys,
        shown=shown,
        metrics=table.metrics,
        differing=[(key, key in keys, counted(runs, key)) for key in differing],
        common=[(key, shown(value)) for key, value in common.items()],
        ended=[(run, link(run, to_sweep)) for run in runs if not run.finished],
        most=MOST_ROWS,
        data=Markup(page_data(table, keys, differing, to_sweep)),
    )
    # JSON may hold lone surrogates, which are no text, and characters that turn the direction of what follows them
    return UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text.encode(errors="replace").decode())


def _allowed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _marked(notes: Notes) -> list[tuple[Markup, Markup]]:
    return [(Markup(mark), Markup(text)) for mark, text in notes]


# --------------------------------------------------------------------------------------------------------------- table


def _table(table: Table, texts: Document) -> dict[str, Any]:
    """Heads and rows of the table as markup, with the values that the script sorts them by."""
    places = [(column, metric) for column in table.columns for metric in table.metrics]
    ranks = [{value: rank for rank, value in enumerate(distinct(table.runs, key))} for key in table.row_keys]
    body = []
    for number, (row, row_texts) in enumerate(zip(table.rows, texts.models, strict=True)):
        values = [rank[value] for rank, value in zip(ranks, row, strict=True)] or [0]
        heads = [(Markup(text), value) for text, value in zip(row_texts, values, strict=False)]
        cells = []
        for (column, metric), text in zip(places, row_texts[len(texts.keys) :], strict=True):
            cell = table.cells.get((row, column, metric))
            mean, _, remarks = text.partition(" (")
            kind = "remark" if len(remarks) <= LONGEST_REMARK else "remark long"
            title = "" if cell is None else plural(len(cell.runs), "run")
            if cell is not None and cell.p is not None:
                title += f"; p = {cell.p:.2g} against the best mean"
            cells.append(
                {
                    "text": Markup(mean + (f' <span class="{kind}">({remarks}</span>' if remarks else "")),
                    "value": "" if cell is None or cell.mean is None else repr(cell.mean),
                    "group": number * len(table.columns) + table.columns.index(column),
                    "metric": metric,
                    "title": title,
                }
            )
        body.append((heads, cells))
    return {
        "keys": list(map(Markup, texts.keys)) if table.row_keys else ["runs"],
        "columns": [Markup(text) for text in texts.columns if table.column_keys],
        "heads": [(Markup(text), direction(name)) for text, name in zip(texts.metrics, table.metrics, strict=True)]
        * len(table.columns),
        "body": body,
        "baselines": [list(map(Markup, row)) for row in texts.baselines],
        "key_count": len(texts.keys),
    }


# ------------------------------------------------------------------------------------------------------------ pictures


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _size(image: bytes) -> tuple[int, int]:
    """Width and height of a PNG or an SVG, so that the browser keeps room for it; (0, 0) if it does not say."""
    if image.startswith(PNG) and len(image) >= 24:
        return struct.unpack(">II", image[16:24])
    box = re.search(rb'viewBox="[-\d.]+[ ,]+[-\d.]+[ ,]+([\d.]+)[ ,]+([\d.]+)"', image[:4000])
    return (round(float(box[1])), round(float(box[2]))) if box else (0, 0)


def _figure(figure: "Drawn") -> dict[str, Any]:
    """A figure: its picture, and its files, which are embedded if they are small and else linked."""
    is_vector = len(figure.svg) <= LARGEST_SVG
    picture, picture_kind = (figure.svg, "image/svg+xml") if is_vector else (figure.png, "image/png")
    width, height = _size(picture)
    files = []
    for suffix, kind in {"svg": "image/svg+xml", "pdf": "application/pdf", "png": "image/png"}.items():
        file: bytes = getattr(figure, suffix)
        is_shown = file is picture  # the script hands out the picture that the page shows
        embedded = len(file) <= LARGEST_DOWNLOAD and not is_shown
        files.append(
            {
                "suffix": suffix,
                "name": f"{figure.name}.{suffix}",
                "address": _uri(kind, file) if embedded else f"figures/{quote(figure.name, safe='')}.{suffix}",
                "embedded": embedded,
                "shown": is_shown,
                "size": f"{max(1, round(len(file) / 1000))} kB",
            }
        )
    return {"drawn": figure, "image": _uri(picture_kind, picture), "width": width, "height": height, "files": files}


def _pictures(folder: Path, run: Run, room: int) -> tuple[list[dict[str, Any]], int, int]:
    """The run's own pictures that fit into `room` bytes, how many are left out, and the bytes that are left."""
    figures = folder / run.run_id / "figures"
    pictures, left_out = [], 0
    is_linked = any(path.is_symlink() for path in (folder / run.run_id, figures))
    for path in [] if is_linked or not figures.is_dir() else sorted(figures.glob("*.png")):
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes() if path.stat().st_size <= room else b""
        if not content.startswith(PNG):
            left_out += 1
            continue
        room -= len(content)
        width, height = _size(content)
        title = path.stem.replace("_", " ")
        pictures.append({"title": title, "image": _uri("image/png", content), "width": width, "height": height})
    return pictures, left_out, room


def _extremes(table: Table, folder: Path, to_sweep: str) -> dict[str, Any] | None:
    """The best and the worst run, with everything that the page shows of them."""
    both = extremes(table.everything, table.metrics)
    if both is None:
        return None
    room, articles = LARGEST_PICTURES // 2, []
    titles = {"Best": both.best, "Worst": both.worst} if both.best is not both.worst else {"Only": both.best}
    for title, run in titles.items():
        pictures, left_out, unused = _pictures(folder, run, room)
        room = LARGEST_PICTURES // 2 + unused
        names = dict.fromkeys([both.metric, *table.metrics, *sorted(run.metrics)])
        metrics = [(name, _number(run.metrics[name])) for name in names if name in run.metrics]
        main = 1 + sum(name in run.metrics for name in table.metrics if name != both.metric)
        articles.append(
            {
                "title": title,
                "run": run,
                "link": link(run, to_sweep),
                "pictures": pictures,
                "left_out": left_out,
                "metrics": metrics[:main],
                "others": metrics[main:],
            }
        )
    return {"metric": both.metric, "why": both.why, "runs": articles}


def _number(value: float | None) -> str:
    return "null" if value is None else f"{value:.5g}"
