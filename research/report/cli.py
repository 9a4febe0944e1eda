"""The command `scripts/report.py`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = {"markdown": "md", "latex": "tex", "csv": "csv"}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of decimals, 0 or more, got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="report.py",
        description="Tables of a sweep: means over seeds and folds; runs that did not finish stay visible.",
    )
    parser.add_argument("folder", type=Path, metavar="SWEEP_FOLDER", help="outputs/NAME")
    parser.add_argument(
        "--rows", type=_names, metavar="KEY,KEY", help="config keys; default: all that vary but seed and fold"
    )
    parser.add_argument(
        "--columns", type=_names, metavar="KEY,KEY", help="config keys beside the metrics; default: none"
    )
    parser.add_argument(
        "--metrics", type=_names, metavar="NAME,NAME", help="default: the usual test metrics that exist"
    )
    parser.add_argument("--format", choices=[*SUFFIXES, "all"], default="all", help="what is written (default: all)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: SWEEP_FOLDER/report")
    parser.add_argument(
        "--digits", type=_count, metavar="N", help="decimals; default: two digits of the standard deviation"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables of a sweep and print one; 0, or 2 with one line on stderr."""
    options = _parser().parse_args(arguments)

    from research.report import render  # after the options: importing takes a second, --help must not
    from research.report.collect import collect
    from research.report.table import table
    from research.runs.folder import write_atomically
    from research.tree import ConfigError

    try:
        if options.output is None and (options.folder / "report").is_symlink():
            raise ConfigError("folder", options.folder / "report", "it is a link; remove it, or name a place: --output")
        made = table(collect(options.folder), options.rows or None, options.columns, options.metrics or None)
        texts = {
            "markdown": render.markdown(made, options.digits),
            "latex": render.latex(made, options.digits),
            "csv": render.csv(made),
        }
        chosen = list(texts) if options.format == "all" else [options.format]
        output = options.output or options.folder / "report"
        written = [output / f"table.{SUFFIXES[name]}" for name in chosen]
        for name, path in zip(chosen, written, strict=True):
            write_atomically(path, texts[name].encode())
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(texts[chosen[0]], end="")
    print(f"\nwrote {', '.join(map(str, written))}", file=sys.stderr)
    return 0
