"""Running a command: consoles of any encoding, streams that nobody reads, and known errors in one line.

`run` is the only thing that scripts call. What is known (a refused setting, a full disk) ends in one line and exit code
2; anything else is a bug of this project and shows its traceback.
"""

import errno
import io
import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

INTERRUPTED, REFUSED = 130, 2
GONE = {errno.EPIPE, errno.EBADF, errno.EIO, errno.ECONNRESET}  # nobody reads a stream any more


class Stream(io.FileIO):
    """A stream of the console that goes on when nobody reads it.

    Attributes:
      failure: what is wrong with a stream that is a file, so that something is missing there.
    """

    failure: OSError | None = None

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        try:
            written = super().write(data)
            return len(data) if written is None else written
        except OSError as error:
            if error.errno not in GONE:
                self.failure = error
            return len(data)


def settle_streams() -> list[Stream]:
    """Give stdout and stderr an encoder that replaces what it cannot write; closed ones lead nowhere."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened would have this number, and get what is printed
            os.open(os.devnull, os.O_RDWR)
    streams = []
    for number, name in ((1, "stdout"), (2, "stderr")):
        before = getattr(sys, name)
        raw = Stream(number, "w", closefd=False)
        encoding = "utf-8" if before is None else before.encoding
        text = io.TextIOWrapper(io.BufferedWriter(raw), encoding, "replace", line_buffering=number == 2 or raw.isatty())
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
        streams.append(raw)
    return streams


def check_working_folder() -> None:
    """Refuse a working folder that was removed: Hydra, and every relative path, start from it.

    Raises:
      ConfigError: it was.
    """
    from research.tree import ConfigError

    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("folder", ".", "the working folder was removed; change to one that exists") from None


def known(error: BaseException) -> str | None:
    """One line on an error that is none of this program's: the setting, the file or the place; else None."""
    import yaml

    from research.runs.folder import disk_remedy
    from research.tree import ConfigError

    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OSError) and (text := disk_remedy(error)) is not None:
        return f"{error.filename or 'disk'}: {text}"
    if isinstance(error, yaml.YAMLError):
        return f"only plain YAML is read: {error}"
    return None


def one_line(message: str) -> str:
    """A message without line breaks and control characters: what was read from a folder cannot steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(message.split()))


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command and leave with its exit code."""
    streams = settle_streams()
    warnings.formatwarning = lambda message, *about, **more: f"warning: {one_line(str(message))}\n"
    try:
        check_working_folder()
        code: int | str | None = main()
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if (message := known(error)) is None:
            raise
        sys.stderr.write(f"error: {one_line(message)}\n")
        code = REFUSED
    sys.stdout.flush()
    failure = next((stream.failure for stream in streams if stream.failure is not None), None)
    if failure is not None and not code:
        sys.stderr.write(f"error: what was printed could not be written to its end ({failure.strerror})\n")
        code = REFUSED
    raise SystemExit(code)
