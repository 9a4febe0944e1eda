import io
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import backend_context, metadata
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from research.runs.events import NAME, EventFile, png, projector, unify
from research.runs.files import ALONE
from research.runs.folder import RunFolder
from research.runs.summary import spread, summary


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def scalars(folder, tag):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def test_scalars_come_back_from_one_file(tmp_path):
    events = EventFile(tmp_path, ALONE)
    rows = [(step, 1e9 + step, {"train/loss": step / 4, "validation/loss": step / 2}) for step in range(1, 50)]
    events.append(rows[:20])
    EventFile(tmp_path, ALONE).append(rows[20:])
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert "tfevents" in NAME
    found = read(tmp_path)
    assert [(e.wall_time, e.step, e.value) for e in found.Scalars("train/loss")] == [(w, s, s / 4) for s, w, _ in rows]
    assert len(found.Scalars("validation/loss")) == 49


def test_repeated_steps_are_replaced_by_tag(tmp_path):
    EventFile(tmp_path, ALONE).append([(step, 0.0, {"train/loss": 1.0, "train/mse": 1.0}) for step in (1, 2, 3)])
    EventFile(tmp_path, ALONE).append([(2, 0.0, {"train/loss": 5.0, "test/loss": 7.0})])
    assert scalars(tmp_path, "train/loss") == [(1, 1.0), (2, 5.0)]
    assert scalars(tmp_path, "train/mse") == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert scalars(tmp_path, "test/loss") == [(2, 7.0)]


def test_a_record_cut_short_is_removed(tmp_path):
    EventFile(tmp_path, ALONE).append([(1, 0.0, {"train/loss": 1.0}), (2, 0.0, {"train/loss": 2.0})])
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:-3])
    EventFile(tmp_path, ALONE).append([(3, 0.0, {"train/loss": 3.0})])
    assert scalars(tmp_path, "train/loss") == [(1, 1.0), (3, 3.0)]


def test_not_a_number_is_kept_and_none_left_out(tmp_path):
    EventFile(tmp_path, ALONE).append([(1, 0.0, {"train/loss": float("nan"), "test/loss": None})])
    assert np.isnan(scalars(tmp_path, "train/loss")[0][1])
    assert read(tmp_path).Tags()["scalars"] == ["train/loss"]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_png_gives_back_its_pixels(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(picture)))), picture)
    with pytest.raises(ValueError, match="uint8"):
        png(picture.astype(np.float32))


def test_pictures_come_back(tmp_path):
    EventFile(tmp_path, ALONE).images({"samples": png(np.zeros((4, 9, 3), np.uint8))}, step=3)
    (event,) = read(tmp_path).Images("samples")
    assert (event.step, event.width, event.height) == (3, 9, 4)


def experiment(folder):
    """What TensorBoard's HParams page lists of a folder of runs."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    about = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = context.RequestContext()
    content = about.hparams_metadata(request, "")
    return about.experiment_from_metadata(request, "", True, content, []), content


def test_hyper_parameters_and_metric_columns(tmp_path):
    members = unify([{"model.beta": 1, "optimizer": "adam"}, {"model.beta": 0.5, "optimizer": "sgd"}])
    for index, values in enumerate(members):
        events = EventFile(tmp_path / str(index), ALONE)
        events.hparams(values, started=10.0)
        events.append([(1, 0.0, {"test/loss": 1.0 + index})])
        events.finish(completed=index == 0, ended=20.0)
    found, content = experiment(tmp_path)
    domains = {info.name: info for info in found.hparam_infos}
    assert (domains["model.beta"].domain_interval.min_value, domains["model.beta"].domain_interval.max_value) == (
        0.5,
        1.0,
    )
    assert {value.string_value for value in domains["optimizer"].domain_discrete.values} == {"adam", "sgd"}
    assert [info.name.tag for info in found.metric_infos] == ["test/loss"]
    ends = [metadata.parse_session_end_info_plugin_data(content[run][metadata.SESSION_END_INFO_TAG]) for run in "01"]
    assert [(end.status, end.end_time_secs) for end in ends] == [(1, 20.0), (2, 20.0)]


def test_a_key_has_one_type_in_all_runs():
    found = unify([{"a": 1, "b": True, "c": None, "d": True}, {"a": 2.5, "b": False, "c": 3, "d": 2}, {"e": [1, 2]}])
    assert found == [
        {"a": 1.0, "b": True, "c": "null", "d": "true"},
        {"a": 2.5, "b": False, "c": "3", "d": "2"},
        {"e": "[1, 2]"},
    ]
    assert isinstance(found[0]["a"], float)


def layout_of(folder):
    (event,) = read(folder).Tensors("custom_scalars__config__")
    return layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])


def test_layout_draws_train_over_validation(tmp_path):
    EventFile(tmp_path, ALONE).layout(["train/loss", "validation/loss", "train/kl_nats"])
    (chart,) = layout_of(tmp_path).category[0].chart
    assert chart.title == "loss"
    assert list(chart.multiline.tag) == ["^train/loss$", "^validation/loss$"]


def test_projector_files_can_be_read(tmp_path):
    codes = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    projector(tmp_path, ALONE, codes, np.array([3, 1, 0, 2]), (np.zeros((16, 12), np.uint8), 8, 6))
    config = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    np.testing.assert_allclose(np.loadtxt(tmp_path / embedding.tensor_path), codes, rtol=1e-5)
    assert (tmp_path / embedding.metadata_path).read_text().split() == ["3", "1", "0", "2"]
    assert list(embedding.sprite.single_image_dim) == [6, 8]
    assert (tmp_path / embedding.sprite.image_path).exists()


def test_mean_and_spread_over_seeds(tmp_path):
    for seed, losses in enumerate([(4.0, 1.0), (8.0, 3.0), (float("nan"), 5.0)]):
        rows = [{"step": step, "seconds": 1.0, "train/loss": loss} for step, loss in zip((1, 2), losses, strict=True)]
        RunFolder(tmp_path / f"seed={seed}", ALONE).append_metrics(rows)
    members = [tmp_path / f"seed={seed}" for seed in range(3)]
    for round in range(2):  # written anew, not appended
        later = time.time() + 10 * round
        os.utime(members[0] / "metrics.csv", (later, later))
        (place,) = summary(tmp_path, {"model.beta=1/2": members, "alone": members[:1]}, ALONE)
    assert place == tmp_path / "summary" / "model.beta=1_2"
    assert scalars(place, "train/loss") == [(1, 6.0), (2, 3.0)]
    assert scalars(place, "within_one_sd/train/loss/low") == [(1, pytest.approx(6 - 8**0.5)), (2, 1.0)]
    assert scalars(place, "within_one_sd/train/loss/high")[1] == (2, 5.0)
    assert layout_of(place).category[0].chart[0].margin.series[0].upper == "within_one_sd/train/loss/high"


def test_spread_needs_two_members():
    assert spread([[{"step": 1, "a/b": 1.0}]]) == []


def test_the_import_stays_small():
    code = (
        "import sys, research.runs.events; print([m for m in sys.modules if 'stub' in m or m == 'tensorboard.summary'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated")
def test_text_is_what_tensorboards_text_page_shows(tmp_path):
    from tensorboard.plugins.text import text_plugin

    EventFile(tmp_path / "run", ALONE).text("about", "run `a` of **b**")
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    plugin = text_plugin.TextPlugin(base_plugin.TBContext(data_provider=provider, logdir=str(tmp_path)))
    request = context.RequestContext()
    assert plugin.index_impl(request, "") == {"run": ["about"]}
    (shown,) = plugin.text_impl(request, "run", "about", "", True)
    assert shown["text"] == "<p>run <code>a</code> of <strong>b</strong></p>"
