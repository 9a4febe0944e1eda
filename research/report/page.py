"""One HTML page of a sweep: table, figures, runs and configs in a single file that needs no server and no network."""

import base64
import dataclasses
import hashlib
import html
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from research.metrics import direction
from research.report import record
from research.report.caption import caption, notes
from research.report.collect import Run
from research.report.embed import blob, configs, counted, link
from research.report.keys import distinct
from research.report.render import PLAIN, PUBLISHED, Layout, Style, column_name, header, published_rows, rows, sources
from research.report.table import Table, Values
from research.report.texts import plural, shown

if TYPE_CHECKING:
    from research.report.figures import Drawn

HERE = Path(__file__).parent
LARGEST_SVG = 300_000  # bytes; a larger figure is shown as PNG
LONGEST_REMARK = 30  # characters beside a mean; longer ones stand below it
LARGEST_DOWNLOAD = 20_000  # bytes of a file that is embedded for its download; others are linked
LARGEST_PICTURES = 3_000_000  # bytes of all pictures of single runs
MOST_ROWS = 500  # of tables that the script does not make
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
PNG = b"\x89PNG\r\n\x1a\n"

STYLE = Style(
    escape=html.escape,
    best=lambda text: f"<strong>{text}</strong>",
    second=lambda text: f"<u>{text}</u>",
    mark=lambda mark: f"<sup>{html.escape(mark)}</sup>" if mark else "",
    power=lambda digits, exponent: f"{digits} × 10<sup>{exponent}</sup>",
    plus_minus="±",
    dash="—",
    better={
        "lower": '<span aria-hidden="true">↓</span><span class="unseen">, lower is better</span>',
        "higher": '<span aria-hidden="true">↑</span><span class="unseen">, higher is better</span>',
    },
)


def page(
    table: Table, folder: Path, figures: "Sequence[Drawn]", layout: Layout = PLAIN, output: Path | None = None
) -> str:
    """The page, to be written into the folder `output` (`report` in the sweep's): its links to runs are relative to it.

    Everything that comes from the sweep is escaped; the content security policy lets only the page's own script and
    style run, and nothing be loaded.
    """
    folder = Path(folder)
    way = ".." if output is None else Path(os.path.relpath(folder.resolve(), output.resolve())).as_posix()
    runs = table.everything
    records = [record.record_of(folder, run) for run in runs]
    script, style = ((HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    keys = record.swept_keys(folder, runs)
    differing, common = configs(table, keys)
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
        when=record.when(runs),
        count=plural(len(runs), "run"),
        statuses=record.statuses(runs),
        origins=record.origins(runs, records),
        plan=record.plan(folder, runs, records),
        swept=record.swept(runs, keys),
        table=_table(table, layout),
        caption=caption(table, layout.parts) + layout.words,
        notes=[(Markup(STYLE.mark(mark)), text) for mark, text in notes(table)],
        published=[[Markup(text) for text in row] for row in published_rows(table, STYLE, layout)],
        published_head=PUBLISHED,
        sources=[(Markup(STYLE.mark(mark)), text) for mark, text in sources(table)],
        figures=[_figure(figure) for figure in figures],
        extremes=_extremes(table, folder, records, way),
        tensorboard=record.tensorboard(folder),
        runs=[
            (run, link(run, way), "" if one.seconds is None else f"{one.seconds:.3g}")
            for run, one in list(zip(runs, records, strict=True))[:MOST_ROWS]
        ],
        keys=keys,
        shown=shown,
        metrics=table.metrics,
        differing=[(key, key in keys, counted(runs, key)) for key in differing],
        common=[(key, shown(value)) for key, value in common.items()],
        ended=[(run, link(run, way)) for run in runs if not run.finished],
        most=MOST_ROWS,
        data=Markup(blob(table, records, keys, differing, way)),
    )
    # a lone surrogate of a JSON file is no text; what turns the direction of writing would reach beyond its value
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text.encode(errors="replace").decode())


def _breakable(text: str) -> str:
    """An escaped name that a line may break where its parts meet."""
    return re.sub(r"([/.])(?=\w)", r"\1<wbr>", html.escape(text))


def _allowed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# --------------------------------------------------------------------------------------------------------------- table


def _places(table: Table) -> list[tuple[Values, str]]:
    return [(column, metric) for column in table.columns for metric in table.metrics]


def _table(table: Table, layout: Layout) -> dict[str, Any]:
    """Heads and rows as marked up texts, with what they are sorted by."""
    models, exact = rows(table, STYLE, layout)
    heading = dataclasses.replace(STYLE, escape=_breakable)
    width = len(table.row_keys) or 1
    places = _places(table)
    body = []
    ranks = [{value: rank for rank, value in enumerate(distinct(table.runs, key))} for key in table.row_keys]
    for index, (row, texts) in enumerate(zip(table.rows, models, strict=True)):
        cells = []
        for (column, metric), text in zip(places, texts[width:], strict=True):
            cell = table.cells.get((row, column, metric))
            number, _, remarks = text.partition(" (")
            remark = "remark" if len(remarks) <= LONGEST_REMARK else "remark long"
            about = ""
            if cell is not None:
                about = plural(len(cell.runs), "run")
                about += "" if cell.p is None else f"; p = {cell.p:.2g} against the best mean"
            cells.append(
                {
                    "text": Markup(number + f' <span class="{remark}">({remarks}</span>' * bool(remarks)),
                    "value": "" if cell is None or cell.mean is None else repr(cell.mean),
                    "group": index * len(table.columns) + table.columns.index(column),
                    "metric": metric,
                    "about": about,
                }
            )
        heads = [(Markup(text), rank[value]) for text, rank, value in zip(texts, ranks, row, strict=False)]
        body.append((heads or [(Markup(texts[0]), 0)], cells))
    return {
        "keys": list(table.row_keys) or ["runs"],
        "groups": [(column_name(table, column), len(table.metrics)) for column in table.columns if column],
        "heads": [
            (Markup(header(metric, heading).replace(" <", "&nbsp;<")), direction(metric)) for _, metric in places
        ],
        "body": body,
        "baselines": [[Markup(text) for text in texts] for texts in exact],
        "width": width,
    }


# ------------------------------------------------------------------------------------------------------------ pictures


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _size(image: bytes) -> tuple[int, int]:
    """Width and height of a PNG or an SVG, so that room is kept for it; 0 where they are not told."""
    if image.startswith(PNG) and len(image) >= 24:
        return struct.unpack(">II", image[16:24])
    box = re.search(rb'viewBox="[-\d.]+[ ,]+[-\d.]+[ ,]+([\d.]+)[ ,]+([\d.]+)"', image[:4000])
    return (round(float(box[1])), round(float(box[2]))) if box else (0, 0)


def _figure(figure: "Drawn") -> dict[str, Any]:
    vector = len(figure.svg) <= LARGEST_SVG
    content, kind = (figure.svg, "image/svg+xml") if vector else (figure.png, "image/png")
    width, height = _size(content)
    kinds = {"svg": "image/svg+xml", "pdf": "application/pdf", "png": "image/png"}
    files = []
    for suffix, media in kinds.items():
        file: bytes = getattr(figure, suffix)
        small = len(file) <= LARGEST_DOWNLOAD and file is not content  # the script gives out what is shown
        address = _uri(media, file) if small else f"figures/{quote(figure.name, safe='')}.{suffix}"
        files.append(
            (
                suffix,
                f"{figure.name}.{suffix}",
                address,
                small,
                file is content,
                f"{max(1, round(len(file) / 1000))} kB",
            )
        )
    return {"drawn": figure, "image": _uri(kind, content), "width": width, "height": height, "files": files}


def _pictures(folder: Path, run: Run, room: int) -> tuple[list[dict[str, Any]], int, int]:
    """The run's own pictures as far as there is room, how many are left out, and the room that is left."""
    place = folder / run.run_id / "figures"
    found, left_out = [], 0
    linked = any(path.is_symlink() for path in (folder / run.run_id, place))
    for path in [] if linked or not place.is_dir() else sorted(place.glob("*.png")):
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes() if path.stat().st_size <= room else b""
        if not content.startswith(PNG):
            left_out += 1
            continue
        room -= len(content)
        width, height = _size(content)
        words = path.stem.replace("_", " ")
        found.append({"words": words, "image": _uri("image/png", content), "width": width, "height": height})
    return found, left_out, room


def _extremes(table: Table, folder: Path, records: Sequence[record.Record], way: str) -> dict[str, Any] | None:
    """The best and the worst run, with everything that is shown of them."""
    found = record.extremes(table.everything, table.metrics)
    if found is None:
        return None
    room, both = LARGEST_PICTURES // 2, []
    chosen = dict.fromkeys([("Best", found.best), ("Worst", found.worst)])
    if found.best == found.worst:
        chosen = {("Only", found.best): None}
    for title, index in chosen:
        run = table.everything.records[index]
        pictures, left_out, unused = _pictures(folder, run, room)
        room = LARGEST_PICTURES // 2 + unused
        names = dict.fromkeys([found.metric, *table.metrics, *sorted(run.metrics)])
        shown_metrics = [(name, _number(run.metrics[name])) for name in names if name in run.metrics]
        first = 1 + sum(name in run.metrics for name in table.metrics if name != found.metric)
        both.append(
            {
                "title": title,
                "run": run,
                "link": link(run, way),
                "command": records[index].command,
                "pictures": pictures,
                "left_out": left_out,
                "metrics": shown_metrics[:first],
                "others": shown_metrics[first:],
            }
        )
    return {"metric": found.metric, "why": found.why, "runs": both}


def _number(value: float | None) -> str:
    return "null" if value is None else f"{value:.5g}"
