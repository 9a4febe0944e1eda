"""Published files: only the right content is used."""

import gzip
import hashlib
from pathlib import Path

import pytest

from research.data.files.local import Unusable, decompress, fetch
from research.tree import ConfigError

CONTENT = b"some published content" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MIRRORS = ("https://one.invalid/", "https://two.invalid/")


def read(root: Path | None) -> bytes:
    return fetch("a.gz", SHA256, folder="set", mirrors=MIRRORS, root=None if root is None else str(root))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.gz", gzip.compress(CONTENT, 9, mtime=0)),
        ("a.gz", gzip.compress(CONTENT, 1, mtime=0)),
        ("a.gz", gzip.compress(CONTENT[:50], mtime=0) + gzip.compress(CONTENT[50:], mtime=0)),
        ("a", CONTENT),
        ("set/a.gz", gzip.compress(CONTENT, mtime=0)),
    ],
)
def test_a_local_file_may_be_compressed_in_any_way(tmp_path, name, content):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (gzip.compress(CONTENT, mtime=0)[:-12], "cut short"),
        (b"", "empty"),
        (b"<html>not found</html>", "not a gzip file"),
        (gzip.compress(b"something else", mtime=0), f"expected {SHA256}"),
    ],
)
def test_a_bad_local_file_is_refused_and_left_alone(tmp_path, content, text):
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(ConfigError, match=text) as caught:
        read(tmp_path)
    assert caught.value.key == "root"
    assert "data.root=null" in caught.value.remedy
    assert (tmp_path / "a.gz").read_bytes() == content


def test_the_found_checksum_is_named(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"something else", mtime=0))
    with pytest.raises(ConfigError, match=hashlib.sha256(b"something else").hexdigest()):
        read(tmp_path)


def test_a_wrong_folder_says_what_is_there(tmp_path):
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(ConfigError, match=r"other\.txt"):
        read(tmp_path)
    with pytest.raises(ConfigError, match=r"no such folder; it must hold set/a.gz or a.gz$"):
        read(tmp_path / "missing")
    (tmp_path / "data" / "mine").mkdir(parents=True)
    with pytest.raises(ConfigError, match=rf"no such folder \(did you mean 'data.root={tmp_path}/data/mine'\?\); it"):
        read(tmp_path / "dta" / "mine")


def test_content_that_is_too_large_is_not_decompressed():
    with pytest.raises(Unusable, match="larger"):
        decompress(gzip.compress(bytes(10_000)), largest=9_999)
    assert len(decompress(gzip.compress(bytes(10_000)), largest=10_000)) == 10_000


@pytest.fixture
def mirrors(tmp_path, monkeypatch):
    """Mirrors that answer with given bytes or a given error, and the list of addresses that were asked."""
    import pooch

    answers, asked = {}, []

    def retrieve(url, known_hash, fname, path):
        asked.append(url)
        answer = answers.get(url, ConnectionError("no network"))
        if isinstance(answer, Exception):
            raise answer
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(answer)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    return answers, asked


def test_mirrors_are_tried_in_turn_and_bad_downloads_deleted(mirrors, tmp_path):
    answers, asked = mirrors
    answers["https://one.invalid/a.gz"] = gzip.compress(CONTENT, mtime=0)[:40]
    cached = tmp_path / "latent-loom" / "set" / "a.gz"
    with pytest.raises(ConfigError, match=r"cut short.*ConnectionError.*data\.root=FOLDER"):
        read(None)
    assert not cached.exists()
    answers["https://two.invalid/a.gz"] = gzip.compress(CONTENT, mtime=0)
    assert read(None) == CONTENT
    assert len(asked) == 4
    assert read(None) == CONTENT
    assert len(asked) == 4, "a cached file is not downloaded again"
    cached.write_bytes(b"damaged")
    assert read(None) == CONTENT
    assert len(asked) == 6
