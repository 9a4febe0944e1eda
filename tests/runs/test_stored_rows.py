"""A contract over all shipped data sets: a run gives for rows as stored what the training's own evaluation had."""

import dataclasses
import gzip
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io

from research import scores
from research.data import adbench
from research.data.images import MNIST, FashionMNIST
from research.data.loading import preparation_of, scored
from research.runs import batches
from research.runs.files import ALONE
from research.runs.folder import RunFolder
from research.runs.load import load
from research.sweep.device import on_device
from research.sweep.job import Job, bind, check_warm_start
from research.sweep.program import member
from research.sweep.train.ledger import config_content
from research.tree import spec

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
RANDOM = np.random.default_rng(0)
SMALL = {
    "adding": {"rows": 60, "length": 6},
    "ar": {"rows": 60, "length": 6, "scaling": "standard"},
    "copy": {"rows": 60, "length": 3},
    "low_rank": {"rows": 60, "features": 5, "rank": 2},
    "sines": {"rows": 60, "length": 6},
    "few_sines": {"rows": 60, "length": 6},
    "sprites": {"rows": 40},
    "digits": {"train_size": 60, "validation_size": 20, "test_size": 20},
    "digits_rows": {"train_size": 60, "validation_size": 20, "test_size": 20},
    "ett": {"window": 8, "horizon": 4, "season": None, "train_size": 50, "validation_size": 20, "test_size": 20},
    "m4": {"window": 50, "stride": 20, "scaling": "standard"},
    "stock": {"window": 6, "scaling": "standard"},
    "energy": {"window": 6, "horizon": 3},
    "polyphonic": {"task": "model"},
}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def csv(path: Path, columns: dict[str, Any]) -> None:
    rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(rows) + "\n")


def images(folder: Path, monkeypatch: Any) -> np.ndarray:
    pixels = RANDOM.integers(0, 256, (46, 4, 5), dtype=np.uint8)
    for kind in (MNIST, FashionMNIST):
        hashes = {}
        for part, rows in (("train", pixels[:40]), ("t10k", pixels[40:])):
            labels = np.arange(len(rows), dtype=np.uint8) % 10
            for name, content in ((f"{part}-images-idx3-ubyte", rows), (f"{part}-labels-idx1-ubyte", labels)):
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(content), mtime=0))
                hashes[name] = hashlib.sha256(idx(content)).hexdigest()
        monkeypatch.setattr(kind, "sha256", hashes)
    return pixels


def pictures(folder: Path) -> np.ndarray:
    """Files in two class folders, and their pixels in the order of the names."""
    from PIL import Image

    pixels = RANDOM.integers(0, 256, (30, 5, 4), dtype=np.uint8)
    for number, image in enumerate(pixels):
        place = folder / ("cat" if number < 14 else "dog")
        place.mkdir(exist_ok=True)
        Image.fromarray(image).save(place / f"{number:02}.png")
    return pixels


def archive(folder: Path) -> list[np.ndarray]:
    """Series of unequal length with a gap, for every problem that a config names."""
    series = [RANDOM.normal(3.0, 7.0, (length, 2)) for length in (6, 5, 6, 4, 6, 6, 5, 6, 6, 6)]
    series[1][2, 0] = np.nan
    for problem in ("Mine", "ECG200", "SyntheticControl"):
        (folder / problem).mkdir()
        header = f"@problemName {problem}\n@timeStamps false\n@univariate false\n@equalLength false\n"
        for part, rows in (("TRAIN", series[:7]), ("TEST", series[7:])):
            text = [header + "@classLabel true up down\n@data"]
            for number, values in enumerate(rows):
                channels = [",".join("?" if np.isnan(step) else repr(float(step)) for step in row) for row in values.T]
                text.append(":".join([*channels, ("up", "down")[number % 2]]))
            (folder / problem / f"{problem}_{part}.ts").write_text("\n".join(text) + "\n")
    return series


def rolls(lengths: list[int]) -> np.ndarray:
    cells = np.empty((1, len(lengths)), object)
    for number, length in enumerate(lengths):
        cells[0, number] = RANDOM.integers(0, 2, (length, 88))
    return cells


def files(name: str, folder: Path, monkeypatch: Any) -> tuple[dict[str, Any], Any]:
    """Small files of a data set, the keys that read them, and the rows as stored where the test made them itself."""
    keys: dict[str, Any] = {"root": str(folder), **SMALL.get(name, {})}
    stored: Any = None
    if name.startswith(("mnist", "fashion")) and name != "mnist1d":
        stored = images(folder, monkeypatch)
        keys |= {"permutation_seed": 3} if name == "mnist_pixels" else {}
    elif name in ("digits", "digits_rows"):
        from sklearn.datasets import load_digits

        stored = load_digits().images
    elif name in ("ucr", "ecg200", "synthetic_control"):
        stored = archive(folder)
        keys |= {"problem": "Mine"} if name == "ucr" else {}
    elif name in ("arrays", "memory"):
        import pandas

        table = pandas.DataFrame({"b": RANDOM.normal(1e6, 2.0, 40), "a": RANDOM.normal(0.0, 1.0, 40)})
        table.to_csv(folder / "mine.csv", index=False)
        stored, keys["path"] = table[["a", "b"]], "mine.csv"
    elif name == "adbench":
        stored, path = RANDOM.normal(5.0, 3.0, (60, 4)), folder / "6_cardio.npz"
        np.savez(path, X=stored, y=np.arange(60) % 5 == 4)
        monkeypatch.setitem(adbench.SETS, "cardio", (path.stem, hashlib.sha256(path.read_bytes()).hexdigest()))
    elif name == "folder":
        stored = pictures(folder)
        keys["path"] = str(folder)
    elif name == "series":
        values = {"time": np.datetime64("2020-01-01T00") + np.arange(80).astype("m8[h]")}
        values |= {"a": RANDOM.normal(1e7, 2.0, 80).round(2), "b": RANDOM.normal(0.0, 1.0, 80)}
        csv(folder / "mine.csv", values)
        keys |= {"path": "mine.csv", "time_column": "time", "window": 6, "horizon": 3}
        both = np.stack([values["a"], values["b"]], axis=1)
        stored = np.stack([both[start : start + 6] for start in range(80 - 8)])
    elif name == "panel":
        lengths = {"a": 50, "b": 70}
        times = np.concatenate(
            [np.datetime64("2020-01-01T00") + np.arange(size).astype("m8[h]") for size in lengths.values()]
        )
        values = {"y": RANDOM.normal(1e7, 2.0, 120).round(2), "z": RANDOM.normal(0.0, 1.0, 120)}
        csv(folder / "mine.csv", {"id": np.repeat(list(lengths), list(lengths.values())), "time": times, **values})
        keys |= {"path": "mine.csv", "id_column": "id", "time_column": "time", "window": 6, "horizon": 3}
        both = np.stack([values["y"], values["z"]], axis=1)
        stored = np.stack(
            [both[start : start + 6] for low, high in ((0, 50), (50, 120)) for start in range(low, high - 8)]
        )
    elif name == "mnist1d":
        stored = RANDOM.normal(size=(25, 6)).astype(np.float32)
        halves = {"x": stored[:20], "y": np.arange(20) % 10, "x_test": stored[20:], "y_test": np.arange(5)}
        np.savez(folder / "mnist1d.npz", **halves)
        stored = stored[..., None]
    elif name == "polyphonic":
        parts = {"traindata": rolls([7, 4, 5, 7]), "validdata": rolls([3, 6]), "testdata": rolls([6, 2])}
        scipy.io.savemat(folder / "JSB_Chorales.mat", parts)
        stored = [roll for part in parts.values() for roll in part[0]]
    elif name == "ett":
        dates = np.datetime64("2016-07-01T00:00:00") + np.arange(14_400).astype("m8[h]")
        names = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
        shown = [str(date).replace("T", " ") for date in dates]
        csv(folder / "ETTh1.csv", {"date": shown, **{column: RANDOM.normal(size=14_400) for column in names}})
    elif name == "m4":
        header = ",".join(f'"V{number}"' for number in range(1, 260))
        row = lambda title, size: ",".join([title, *map(str, RANDOM.normal(50, 9, size).round(2))])
        for part, sizes in (("train", (200, 210)), ("test", (48, 48))):
            lines = [header, *(row(f"H{number}", size) for number, size in enumerate(sizes))]
            (folder / f"Hourly-{part}.csv").write_text("\n".join(lines) + "\n")
    elif name == "stock":
        names = ("Open", "High", "Low", "Close", "Adj_Close", "Volume")
        csv(folder / "stock_data.csv", {column: RANDOM.normal(1e6, 50, 120) for column in names})
    elif name == "energy":
        series = RANDOM.random((120, 3))
        rows = np.lib.stride_tricks.sliding_window_view(series, 24, axis=0).swapaxes(1, 2)
        np.savez(folder / "energy_windows.npz", data=rows)
    return keys, stored


@spec
class Projection:
    """A loss that changes with every number of a row, with its place and its number in the data set."""

    gain: float

    @property
    def takes_masks(self) -> bool:
        return True

    def bind(self, facts: Any) -> "Projection":
        return self

    def init(self, key: Any, train: Any) -> Any:
        return {"weight": np.ones((), np.float32)}

    def loss(self, params: Any, batch: Any, key: Any, clock: Any) -> Any:
        raise AssertionError("nothing is trained here")

    def evaluate(self, params: Any, batch: Any, keys: Any) -> Any:
        total = jax.vmap(jax.random.normal)(keys)
        missing = None if batch.mask is None else ~batch.mask
        for part in (batch.x, missing, batch.target, batch.label):
            if part is not None:
                flat = jnp.asarray(part).reshape(len(keys), -1).astype(jnp.float32)
                total += self.gain * params["weight"] * (flat * jnp.sin(1.0 + jnp.arange(flat.shape[1]))[None]).sum(1)
        return {"loss": total}


FAMILIES = {  # the data whose rows go through a family of models; elsewhere a projection shows what a model sees
    "digits": ("vae", {"latent_dim": 2, "hidden_dims": [3], "likelihood": "gaussian"}),
    "ett": ("recurrent_forecaster", {"hidden_dim": 3}),
    "ecg200": ("recurrent_vae", {"latent_dim": 2, "hidden_dim": 3, "likelihood": "gaussian"}),
}


@pytest.mark.parametrize("name", NAMES)
def test_rows_as_stored_give_what_the_evaluation_of_the_training_had(name, tmp_path, monkeypatch, shipped_config):
    (tmp_path / "files").mkdir()
    keys, stored = files(name, tmp_path / "files", monkeypatch)
    sections = {"optimizer": "adam", "trainer": "default", "evaluation": "none", "data": name}
    config = {section: shipped_config(section, choice) for section, choice in sections.items()}
    config["data"] |= keys
    config["trainer"] |= {"batch_size": 2}
    config["model"] = {"_target_": f"{__name__}.Projection", "gain": 0.5}
    if name in FAMILIES:
        family, settings = FAMILIES[name]
        config["model"] = shipped_config("model", family) | settings
    bound = bind(Job.from_config({**config, "seed": 7, "trusted_packages": [__name__]}, {}, ()))
    dataset, split = bound.dataset, bound.dataset.split(None)
    params = bound.model.init(jax.random.key(0), split.prepare(dataset.examples.take(np.arange(3))))
    folder = RunFolder(tmp_path / "run", ALONE)
    folder.write_config(json.loads(json.dumps(config_content(bound, "contract"))))
    folder.save_parameters(params, preparation_of(dataset, None).scaling())
    run = load(folder.path, (__name__,))

    numbers = np.sort(split.rows("test"))
    if stored is None:  # nothing is arranged: the rows are stored as they are
        stored = dataset.examples.take(np.arange(len(dataset.examples))).x
    some = stored.iloc[numbers] if hasattr(stored, "iloc") else [stored[row] for row in numbers]
    some = some if hasattr(some, "columns") or np.ndim(stored[0]) != np.ndim(stored[-1]) else _rows(some)
    whole = scored(dataset, None)["test"].take(slice(None))
    assert whole.target_observed is None
    rows = run._prepared(run.rows(some))
    np.testing.assert_allclose(rows.x, whole.x, rtol=1e-6, atol=1e-6)
    if name in FAMILIES:
        ability = "forecast" if name == "ett" else "encode"
        function = lambda batch, _: batches.call(bound.model, params, batch, ability)
        expected, given = batches.over(function, whole, 256), getattr(run, ability)(some)
        if name == "ett":
            expected, given = expected.mean / split.target_scale + split.target_shift, given.mean
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)

    beside = {} if whole.target is None else {"target": dataset.examples.take(numbers).target}
    if name not in FAMILIES and whole.label is not None:  # a projection also reads the label
        beside["label"] = whole.label if run.classes is None else np.array(run.classes)[whole.label]
    losses = run.score(some, numbers=numbers, **beside)
    evaluate = jax.jit(
        lambda p, m, d: scores.evaluate(bound.model, p, m.seed, m.split, d, bound.budget, np.bool_(True))
    )
    loss = evaluate(params, member(bound), on_device(dataset))["test/loss"]
    np.testing.assert_allclose(losses.mean(), loss, rtol=1e-5)


def _rows(rows: list[Any]) -> Any:
    """An array where all rows have one shape."""
    return np.stack(rows) if len({np.shape(row) for row in rows}) == 1 else rows


def test_the_contract_has_every_kind_of_rows():
    assert {"arrays", "folder", "series", "panel", "ucr", "mnist_pixels", "polyphonic", "m4"} <= set(NAMES)


MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


@pytest.mark.parametrize("name", MODELS)
def test_every_shipped_model_is_loaded_with_the_parameters_that_it_needs(name, tmp_path, shipped_config):
    model = shipped_config("model", name)
    sequences = "cell" in model
    data = shipped_config("data", "ar" if sequences else "digits") | ({"horizon": 4, "rows": 60} if sequences else {})
    if name != "recurrent_forecaster" and sequences:
        data = shipped_config("data", "digits_rows")
    sections = {"optimizer": "adam", "trainer": "default", "evaluation": "none"}
    config = {section: shipped_config(section, choice) for section, choice in sections.items()}
    config["trainer"] |= {"keep": "last"}
    config |= {"model": model, "data": data, "seed": 0, "trusted_packages": []}
    bound = bind(Job.from_config(config, {}, ()))
    rows = bound.dataset.split(None).prepare(bound.dataset.examples.take(np.arange(40)))
    shapes = jax.eval_shape(bound.model.init, jax.random.key(0), rows)
    folder = RunFolder(tmp_path / "run", ALONE)
    folder.write_config(json.loads(json.dumps(config_content(bound, "contract"))))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    folder.save_parameters(params, preparation_of(bound.dataset, None).scaling())
    assert load(folder.path).model == bound.model
    start = dataclasses.replace(bound.job.trainer, warm_start=str(folder.path))
    check_warm_start(dataclasses.replace(bound, job=dataclasses.replace(bound.job, trainer=start)))
