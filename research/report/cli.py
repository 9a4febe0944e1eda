"""The command `scripts/report.py`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research.report.spec import Report
    from research.report.table import Table
    from research.report.texts import Layout

TABLES = {"markdown": "table.md", "latex": "table.tex", "csv": "table.csv"}
LEASE = ".report-lease.json"  # in the folder of the report
FORMATS = (*TABLES, "html")
IMAGES = ("pdf", "svg", "png")
PARTS = ("sd", "interval", "median", "iqm", "n")

DESCRIPTION = """\
Tables, figures and one page of a sweep.

A cell is the mean over the seeds and folds of the runs that finished; other runs stay visible with their reason. The
best mean of a column is bold, together with all means that are not significantly worse. Naive baselines stand below.
"""
EXAMPLES = """\
examples:
  report.py outputs/sweep                                      everything, into outputs/sweep/report
  report.py outputs/sweep --format markdown                    a table on the screen and in table.md
  report.py outputs/sweep --rows model.latent_dim --columns model.beta --metrics test/nll_nats
  report.py outputs/sweep --rows model --select model.latent_dim,optimizer.learning_rate
                                                               each model at its best setting on validation rows
  report.py outputs/sweep --show sd,interval,n --interval bootstrap
  report.py outputs/sweep --names 'model.latent_dim=latent size,test/nll_nats=NLL' --decimals test/nll_nats=1
  report.py outputs/sweep --figures metric_over_key,learning_curves
  report.py outputs/sweep --stability                          how similar the codes of different seeds are

An experiment names its rows, columns, metrics and published values in its `report:` section (conf/experiment/*.yaml).
The sweep records that section in sweep.json; options of this command replace its entries.
"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _settings(text: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    for pair in _names(text):
        name, _, value = (part.strip() for part in pair.partition("="))
        if not name or not value:
            raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {pair!r}")
        if name in settings:
            raise argparse.ArgumentTypeError(f"{name} is there twice")
        settings[name] = value
    return settings


def _counts(text: str) -> dict[str, int]:
    return {name: _count(value) for name, value in _settings(text).items()}


def _count(text: str) -> int:
    from research.report.texts import MOST_DECIMALS

    if not text.isdecimal() or int(text) > MOST_DECIMALS:
        raise argparse.ArgumentTypeError(f"expected a number of decimals, 0 to {MOST_DECIMALS}, got {text!r}")
    return int(text)


def _parts(text: str) -> tuple[str, ...]:
    names = _names(text)
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(PARTS)}, got {name!r}")
    return names


def _parser() -> argparse.ArgumentParser:
    from research.report.figures import KINDS

    parser = argparse.ArgumentParser(
        prog="report.py",
        description=DESCRIPTION,
        epilog=EXAMPLES + "\nfigures:\n" + "".join(f"  {name:<22}{text}\n" for name, text in KINDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="SWEEP_FOLDER", help="outputs/NAME")
    table = parser.add_argument_group("what the table shows")
    lists = {
        "--rows": ("KEY,KEY", "config keys; default: all that vary but seed and fold"),
        "--columns": ("KEY,KEY", "config keys beside the metrics; default: none"),
        "--metrics": ("NAME,NAME", "default: the usual metrics of the test rows"),
        "--over": ("KEY,KEY", "config keys whose values n counts and tests pair, such as data.set; default: seeds"),
        "--select": ("KEY,KEY", "config keys whose best value is chosen on validation rows, cell by cell"),
    }
    for option, (metavar, text) in lists.items():
        table.add_argument(option, type=_names, metavar=metavar, help=text)
    text = "metric that chooses; default: one that compares all settings (ELBO, error)"
    table.add_argument("--by", metavar="NAME", help=text)
    text = "also average runs that are pruned or interrupted, for a look; default: completed and stopped ones"
    table.add_argument("--include", type=_names, metavar="STATUS,STATUS", help=text)
    text = f"parts of a cell beside the mean: {', '.join(PARTS)} (default: sd)"
    table.add_argument("--show", type=_parts, metavar="PART,PART", help=text)
    table.add_argument("--interval", choices=["t", "bootstrap"], default="t", help="95 %% interval (default: t)")
    text = "decimals of all metrics; default: two digits of the standard deviation"
    table.add_argument("--digits", type=_count, metavar="N", help=text)
    text = "decimals of single metrics: test/nll_nats=1"
    table.add_argument("--decimals", type=_counts, metavar="NAME=N,NAME=N", help=text)
    text = "how keys, metrics and values are written: 'model.latent_dim=latent size,vae=VAE'"
    table.add_argument("--names", type=_settings, metavar="NAME=TEXT,NAME=TEXT", help=text)
    text = "also compare the codes of equal settings between seeds, by CKA and CCA; loads all runs and their data"
    table.add_argument("--stability", action="store_true", default=None, help=text)
    files = parser.add_argument_group("what is written")
    text = "table.md, .tex, .csv, page.html (default: all)"
    files.add_argument("--format", choices=[*FORMATS, "all"], default="all", help=text)
    text = "kinds of figures, or none; default: all that apply, with html and all"
    files.add_argument("--figures", type=_names, metavar="KIND,KIND", help=text)
    files.add_argument("--output", type=Path, metavar="FOLDER", help="default: SWEEP_FOLDER/report")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of a sweep and print one table.

    Returns:
      0; 2 after a refusal, which is one line on stderr; 4 if another command took over the folder of the report.
    """
    options = _parser().parse_args(arguments)
    # imported after the options are read: importing takes a second, and --help must not
    from research.runs.files import LOST, LeaseLost
    from research.tree import ConfigError

    try:
        shown, table, written = _report(options)
    except (ConfigError, LeaseLost) as error:
        print(f"error: {error}", file=sys.stderr)
        return LOST if isinstance(error, LeaseLost) else 2
    from research.report.page_data import best_line, best_run
    from research.report.terminal import draw_table, terminal

    if options.format == "all" and (console := terminal()) is not None:
        draw_table(table, console, _layout(options))
    else:
        print(shown, end="\n" if shown and not shown.endswith("\n") else "")
    if best := best_run(table.everything, table.metrics):
        print(f"\n{best_line(*best, str(options.folder))}", file=sys.stderr)
    print(f"\nwrote {', '.join(map(str, written))}", file=sys.stderr)
    return 0


def _layout(options: argparse.Namespace) -> "Layout":
    """What a cell shows, as the options say."""
    from research.report.texts import Layout

    return Layout(options.digits, options.show or ("sd",), options.interval)


def _report(options: argparse.Namespace) -> tuple[str, "Table", list[Path]]:
    """Write what the options ask for; the text to print, the table, and the files.

    The lease is on the folder of the report alone, so that a sweep which still trains can be looked at. Of two reports
    into one folder the later one stays, also if the earlier one stood still meanwhile.
    """
    from research.runs.files import write_atomically
    from research.runs.folder import check_sweep_folder
    from research.runs.lease import acquire
    from research.tree import ConfigError

    output = options.output or options.folder / "report"
    if options.output is None and output.is_symlink():
        raise ConfigError("folder", output, "it is a link; remove it, or name a place: --output")
    check_sweep_folder(options.folder)
    with acquire(output / LEASE, "--output", str(output), other="--output=") as lease:
        table = _table(options)
        files = _files(options, table, output)
        for name, content in files.items():
            write_atomically(output / name, content, lease)
    first = next(iter(files))
    shown = files[first].decode() if first in TABLES.values() else ""
    written = [output / name for name in files if not name.startswith("figures/")]
    written += [output / "figures"] if any(name.startswith("figures/") for name in files) else []
    return shown, table, written


def _table(options: argparse.Namespace) -> "Table":
    """The table that the sweep recorded, with what the options replace."""
    from research.report.collect import collect
    from research.report.keys import check
    from research.report.spec import check_distinct
    from research.report.table import measured, table_of
    from research.tree import ConfigError

    runs = collect(options.folder).including(options.include or ())
    section = _section(options, runs.plan)
    if options.by is not None and not section.select:
        raise ConfigError("by", options.by, "nothing is chosen by it: name the keys with --select")
    runs = measured(runs, section, options.folder)
    check("metrics", options.metrics or (), runs.metric_names())
    texts = {text for run in runs for text in run.values.values() if isinstance(text, str)}
    check("decimals", options.decimals or (), runs.metric_names())
    check("names", options.names or (), [*runs.config_keys(), *runs.metric_names(), *sorted(texts)])
    check_distinct(options.names or {})
    return table_of(runs, section)


def _files(options: argparse.Namespace, table: "Table", output: Path) -> dict[str, bytes]:
    """File name -> content of everything that the options ask for."""
    from research.report.figures import draw
    from research.report.formats import latex, markdown, published, spreadsheet

    layout = _layout(options)
    formats = FORMATS if options.format == "all" else (options.format,)
    writers = {"markdown": markdown, "latex": latex, "csv": spreadsheet}
    texts = {name: writers[kind](table, layout) for kind, name in TABLES.items() if kind in formats}
    if table.published and "csv" in formats:
        texts["published.csv"] = published(table)
    figures = []
    kinds = None if options.figures is None else [kind for kind in options.figures if kind != "none"]
    if kinds or (kinds is None and "html" in formats):
        figures = draw(table, options.folder, kinds, lambda text: print(text, file=sys.stderr))
    images = {f"figures/{figure.name}.{kind}": getattr(figure, kind) for figure in figures for kind in IMAGES}
    # a reason may hold a lone surrogate, which is valid JSON and no text
    files = {name: text.encode(errors="replace") for name, text in texts.items()} | images
    if "html" in formats:
        from research.report.page import page

        files["page.html"] = page(table, options.folder, figures, layout, output).encode()
    return files


def _section(options: argparse.Namespace, plan: Mapping[str, Any]) -> "Report":
    """The `report:` section that the sweep recorded, where the options of the command replace its entries."""
    import dataclasses

    from research.report.spec import recorded

    entries = {
        name: getattr(options, name)
        for name in ("rows", "columns", "metrics", "over", "select", "by", "names", "decimals", "stability")
    }
    for name in ("rows", "metrics"):  # an empty list asks for the default, as no list does
        entries[name] = entries[name] or None
    changes = {name: value for name, value in entries.items() if value is not None}
    return dataclasses.replace(recorded(plan, options.folder), **changes)


def write(*arguments: str) -> None:
    """Write the report of a sweep, as the command with these arguments does, and print nothing.

    Raises:
      ConfigError: there is no such sweep, or what is asked for is not in it.
      LeaseLost: another command took over the folder of the report.
    """
    _report(_parser().parse_args(arguments))
