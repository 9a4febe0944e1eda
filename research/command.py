"""How every script runs its command: with any console encoding, with closed streams, with known errors in one line.

Scripts call `run` and nothing else. An error that the user can mend (a refused setting, a full disk) ends in one line
and exit code 2. Any other error is a bug of this project and shows its traceback.
"""

import errno
import io
import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from research.errors import ConfigError

INTERRUPTED, REFUSED = 130, 2
GONE = {errno.EPIPE, errno.EBADF, errno.EIO, errno.ECONNRESET}  # errors that say that nobody reads the stream any more


class Stream(io.FileIO):
    """A stream of the console. Writing goes on without an error when nobody reads it any more.

    Attributes:
      failure: the error of a stream that is a file, in which some of the output is therefore missing.
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
    """Let stdout and stderr replace characters that they cannot encode, and open closed streams on the null device."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # The next opened file would get this number, and with it all printed text.
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
    """Refuse a working folder that was removed, since Hydra and every relative path start from it.

    Raises:
      ConfigError: the folder does not exist any more.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("folder", ".", "the working folder was removed; change to one that exists") from None


def known(error: BaseException) -> str | None:
    """One line about an error that the user can mend, with the setting or the file; None for a bug of this project."""
    if isinstance(error, ConfigError):
        return str(error)

    import yaml

    from research.runs.files import disk_remedy

    if isinstance(error, OSError) and (text := disk_remedy(error)) is not None:
        return f"{error.filename or 'disk'}: {text}"
    if isinstance(error, yaml.YAMLError):
        return f"only plain YAML is read: {error}"
    return None


def one_line(message: str) -> str:
    """A message without line breaks and control characters, so that text from a file cannot steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(message.split()))


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command and exit with its code."""
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
