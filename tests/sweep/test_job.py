"""What is refused before any work, when a job is bound to its data."""

import dataclasses
from pathlib import Path

import jax
import pytest
import yaml

from research import tree
from research.optimizer import Players
from research.sweep.job import Job, bind
from research.tree import ConfigError

CONF = Path(__file__).parents[2] / "conf"


def section(group, name, **changes):
    content = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    for base in content.pop("defaults", ["_self_"])[:-1]:
        content = yaml.safe_load((CONF / group / f"{base}.yaml").read_text()) | content
    return tree.build(content | changes)


@pytest.fixture(scope="module")
def make(build_model, build_optimizer, build_trainer):
    """`make("recurrent_ae", evaluation={...})`: a job on 60 short sines; `data` names other data."""

    def job(model, *, optimizer="adam", data=None, trainer=None, evaluation=None, **settings):
        rows = section("data", "sines", rows=60, length=4, channels=2) if data is None else data
        return Job(
            model=build_model(model, **settings),
            optimizer=build_optimizer(optimizer),
            trainer=build_trainer(**{"batch_size": 8, **(trainer or {})}),
            data=rows,
            seed=0,
            evaluation=section("evaluation", "standard", **(evaluation or {})),
        )

    return job


def refused(job):
    with pytest.raises(ConfigError) as error:
        bind(job)
    return error.value.key, str(error.value)


@pytest.fixture
def digits():
    return section("data", "digits", layout="rows")


def test_clusters_need_classes_or_another_way_to_choose_their_number(make):
    key, message = refused(make("recurrent_ae", evaluation={"clustering": "classes"}))
    assert key == "evaluation.clustering"
    assert "evaluation.clustering=classes: the data have no classes" in message
    assert message.endswith("use evaluation.clustering=silhouette or evaluation.clustering=none")


def test_as_many_clusters_as_classes_need_more_rows(make, digits):
    few = dataclasses.replace(digits, test_size=10)
    key, message = refused(make("recurrent_ae", data=few, evaluation={"clustering": "classes"}))
    assert key == "evaluation.clustering"
    assert "(10 clusters): there are only 10 rows" in message
    bind(make("recurrent_ae", data=dataclasses.replace(few, test_size=11), evaluation={"clustering": "classes"}))


@pytest.mark.parametrize("clustering", ["silhouette", "stability"])
def test_more_clusters_than_rows_to_choose_them_on(make, clustering):
    """Of 60 rows 12 are test rows and 38 training rows: at most 11 clusters."""
    key, message = refused(make("recurrent_ae", evaluation={"clustering": clustering, "cluster_range": [2, 12]}))
    assert key == "evaluation.cluster_range"
    assert "evaluation.cluster_range=[2, 12]: there are only 12 rows" in message
    bind(make("recurrent_ae", evaluation={"clustering": clustering, "cluster_range": [2, 11]}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cluster_range": [1, 4]}, "cluster_range[0]=1: must be at least 2"),
        ({"cluster_range": [5, 4]}, "cluster_range=[5, 4]: expected [smallest, largest]"),
        ({"cluster_starts": 0}, "cluster_starts=0: must be at least 1"),
        ({"anomaly_share": 1.0}, "anomaly_share=1.0: must lie in (0, 1) (or null)"),
        ({"generation_rows": 19}, "generation_rows=19: must be at least 20 (or null)"),
        ({"clustering": "kmeans"}, "clustering=kmeans: expected one of none, classes, silhouette, stability"),
    ],
)
def test_impossible_settings_of_an_evaluation(changes, message):
    with pytest.raises(ConfigError) as error:
        section("evaluation", "standard", **changes)
    assert str(error.value) == message


LAST = {"keep": "last"}


@pytest.mark.parametrize(
    ("trainer", "accepted"),
    [
        ({}, False),
        ({"monitor": "validation/generator_loss"}, False),
        ({"monitor": "validation/discriminator_accuracy"}, False),
        (LAST, True),
        (LAST | {"patience": 3}, False),
    ],
)
def test_no_loss_of_a_game_is_followed(make, trainer, accepted):
    job = make("recurrent_gan", optimizer="gan", trainer=trainer)
    if accepted:
        assert bind(job).model.steps == 4
        return
    key, message = refused(job)
    assert key == "trainer.monitor"
    assert "of a RecurrentGAN a lower" in message
    assert "trainer.keep=last and trainer.patience=null" in message


def test_other_models_are_followed(make):
    assert bind(make("recurrent_ae", trainer={"patience": 3})).job.trainer.keep == "best"


def test_players_are_the_top_level_keys_of_the_parameters(make, build_optimizer):
    job = make("recurrent_gan", optimizer="gan", trainer=LAST)
    assert {*bind(job).model.fresh(jax.random.key(0))} == {*job.optimizer.players}
    sections = tree.plain(job.optimizer)
    other = tree.build({"generator": sections["generator"], "critic": sections["discriminator"]}, Players)
    key, message = refused(dataclasses.replace(job, optimizer=other))
    assert key == "optimizer"
    assert "generator, critic: the players of a RecurrentGAN are discriminator, generator" in message
    key, message = refused(make("recurrent_ae", optimizer="gan"))
    assert key == "optimizer"
    assert "the players of a RecurrentAE are decoder, encoder" in message
    assert "optimizer=adam" in message


def test_encoder_and_decoder_may_have_optimizers_of_their_own(make):
    sections = tree.plain(make("recurrent_gan", optimizer="gan", trainer=LAST).optimizer)
    own = tree.build({"encoder": sections["generator"], "decoder": sections["discriminator"]}, Players)
    assert bind(dataclasses.replace(make("recurrent_ae"), optimizer=own))


def test_one_optimizer_may_train_both_players(make):
    """The loss is one scalar, and its gradient is each player's own."""
    assert bind(make("recurrent_gan", optimizer="adam", trainer=LAST))


def test_a_discriminator_may_have_an_optimizer_of_its_own(make):
    """Where the model has one; a codebook likewise."""
    assert bind(make("factor_vae", optimizer="discriminator"))
    assert bind(make("vq_ae", optimizer="codebook", codebook="average"))
    for name, own in (("vae", "discriminator"), ("vae", "codebook")):
        key, message = refused(make(name, optimizer=own))
        assert key == "optimizer"
        assert own in message


def test_a_codebook_needs_the_optimizer_that_it_is_made_for(make):
    for settings in ({"codebook": "average"}, {"optimizer": "codebook"}):
        key, message = refused(make("vq_ae", **settings))
        assert key == "model.codebook"
        assert "optimizer=codebook" in message
    fast = tree.plain(make("vq_ae", optimizer="codebook").optimizer)
    fast["codebook"]["learning_rate"] = 3.0
    job = dataclasses.replace(make("vq_ae", codebook="average"), optimizer=tree.build(fast, Players))
    assert refused(job)[0] == "model.codebook"
    assert bind(make("vq_ae"))


def test_samples_of_sequences_are_not_scored_by_a_classifier(make, digits):
    key, message = refused(make("recurrent_vae", data=digits, evaluation={"sampling": True}))
    assert key == "evaluation.sampling"
    assert "evaluation.generation" in message
    image = dataclasses.replace(digits, layout="image")
    assert bind(make("vae", data=image, evaluation={"sampling": True}))
    key, message = refused(make("vae", data=dataclasses.replace(image, test_size=10), evaluation={"sampling": True}))
    assert key == "evaluation.sampling"
    assert "10 test rows" in message


@pytest.mark.parametrize("penalty", ["mmd", "total_correlation", "factor", "dip_i", "dip_ii"])
def test_a_penalty_of_a_batch_needs_more_than_one_row(make, penalty):
    job = make("vae", penalty=penalty, trainer={"batch_size": 1}, likelihood="gaussian")
    key, message = refused(job)
    assert key == "model.penalty"
    assert message.endswith("does nothing; set trainer.batch_size=32 or model.penalty=none")


def test_a_penalty_of_single_codes_takes_batches_of_one_row(make):
    bind(make("vae", penalty="adversarial", trainer={"batch_size": 1}, likelihood="gaussian"))
