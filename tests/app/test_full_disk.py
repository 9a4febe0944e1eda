"""A disk that is full at any write ends a command in one line, and the same command goes on once there is space."""

import builtins
import errno
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """Fails where a command first makes, opens or renames a certain file below a folder; notes the files of all.

    Attributes:
      folder: below which it looks.
      fails_at: the site that fails, None for none.
      code: of the error.
      sites: what was done to which file, without the random part of its name.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.fails_at, self.code, self.sites = folder, "", errno.ENOSPC, list[str]()
        for owner, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "replace"), (os, "mkdir")):
            monkeypatch.setattr(owner, name, self.guarded(name, getattr(owner, name)))

    def guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            mode = options.get("mode", arguments[0] if arguments else "r") if name == "open" else "w"
            writes = mode & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) if isinstance(mode, int) else set(mode) & set("wax+")
            if writes and isinstance(path, str | os.PathLike) and self.folder in Path(path).absolute().parents:
                file = re.sub(r"-[0-9a-f]{12}$|\.[a-z0-9_]{8}$", "", Path(path).name)
                self.sites.append(f"{name} {file}")
                if self.sites[-1] == self.fails_at and self.sites.count(self.fails_at) == 1:
                    raise OSError(self.code, os.strerror(self.code))
            return function(path, *arguments, **options)

        return call


TOLERATED = {"open .lease.json"}  # a heartbeat: the next one comes soon


SOME = {"open multirun.yaml", "open overrides.yaml", "replace .metrics.csv", "replace .result.json"}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_full_disk_at_any_write_is_told_in_one_line_and_the_command_goes_on_later(
    tiny: Callable[..., Any], outputs: Path, every: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(outputs, monkeypatch)
    command = ("-m", "seed=0,1", f"evaluation={'standard' if every else 'none'}")
    assert tiny(*command, "name=first").code == 0
    sites = [site for site in dict.fromkeys(disk.sites) if not site.endswith(" first")]
    assert set(sites) >= SOME
    sites = sites if every else sorted(SOME)
    wanted = parameters(outputs / "first")
    for number, site in enumerate(sites):
        disk.sites, disk.fails_at, disk.code = [], site, (errno.ENOSPC, errno.EFBIG)[number % 2]
        ended = tiny(*command, f"name=sweep{number}")
        if site in TOLERATED:
            assert ended.code == 0
            continue
        assert ended.code == 2, site
        assert re.fullmatch("error: .*(no space is left|files may not become this large).*\n", ended.err), (site, ended)
        disk.fails_at = ""
        assert tiny(*command, f"name=sweep{number}").code == 0, site
        assert parameters(outputs / f"sweep{number}") == wanted, site


def parameters(folder: Path) -> list[bytes]:
    """Parameters of all runs, in the order of their names."""
    return [path.read_bytes() for path in sorted(folder.glob("*/params.safetensors"))]
