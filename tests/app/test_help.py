"""What `--help NAME` says of groups, choices, sections and keys."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from research.compose import compose
from research.explain import choices_of, documented, groups, lines_of
from research.tree import flatten

CONF = Path(__file__).parents[2] / "conf"
Command = Callable[..., Any]
CHOICES = sorted(
    f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if path.parent.name != "experiment"
)


def rows(text: str) -> dict[str, str]:
    """Key -> what stands behind it."""
    return {words[0]: words[2].strip() for line in text.splitlines() if len(words := line.split(maxsplit=2)) == 3}


def test_a_group_is_explained_with_its_choices_and_the_keys_of_the_default(command: Command) -> None:
    ended = command("--help", "model")
    assert ended.code == 0
    assert "model=recurrent_ae           Autoencoder of sequences with recurrent networks" in ended.out
    assert "The keys of model=vae" in ended.out
    assert rows(ended.out)["model.beta"] == "The KL has this weight."


def test_a_choice_is_explained_with_its_own_defaults(command: Command) -> None:
    text = command("--help", "model=lstm_ae").out
    assert [line.split()[1] for line in text.splitlines() if line.startswith("model.cell")] == ["lstm"]
    assert "model.beta " not in text
    assert "Recurrent layers" in text  # the head of the file that has the key
    of_player = command("--help", "optimizer=gan").out
    assert [line.split()[1] for line in of_player.splitlines() if line.startswith("optimizer.generator.b1 ")] == ["0.5"]


@pytest.mark.parametrize(
    ("topic", "key", "meaning"),
    [
        ("sweep", "sweep.max_width", "most members of one group"),
        ("seed", "seed", "draws parameters, data order and noise; data.split_seed draws the split"),
        ("trainer.batch_size", "trainer.batch_size", "A step sees this many rows."),
        ("evaluation.neighbors", "evaluation.neighbors", "k of the k nearest neighbours."),  # from the docstring
    ],
)
def test_sections_and_single_keys_are_explained(topic: str, key: str, meaning: str, command: Command) -> None:
    assert rows(command("--help", topic).out)[key] == meaning


@pytest.mark.parametrize(
    ("topics", "remedy"),
    [
        (["modl"], "there is no such group, section or key (did you mean 'model'?)"),
        (["model.bta"], "no such key (did you mean 'model.beta'?)"),
        (["model.forget_bias"], "it is a key of model=gru_ae, model=lstm_ae, model=recurrent_ae"),
        (["model=lstm"], "no such choice (did you mean 'lstm_ae'?)"),
        (["seed", "sedd"], "(did you mean 'seed'?)"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(topics: list[str], remedy: str, command: Command) -> None:
    ended = command("--help", *topics)
    assert ended.code == 2
    assert remedy in ended.error


def test_experiments_are_listed_by_their_first_sentence(command: Command) -> None:
    text = command("--help", "experiment").out
    assert "experiment=ae_mnist\n  This experiment compares a non-linear autoencoder" in text
    assert "python scripts/train.py -m experiment=ae_mnist" in command("--help", "experiment=ae_mnist").out


def test_choices_of_a_type_are_named_where_no_comment_does(command: Command, tmp_path: Path) -> None:
    config: Any = OmegaConf.to_container(compose([]), resolve=False)
    assert choices_of("sweep", "sweep.retry", config) == ["none", "failed", "diverged", "all"]
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    keys = yaml.safe_load((CONF / "optimizer" / "parts" / "schedule.yaml").read_text())
    keys |= {"_target_": "research.optimizer.Optimizer", "name": "sgd", "learning_rate": 0.1}
    (tmp_path / "mine" / "optimizer" / "bare.yaml").write_text(yaml.safe_dump(keys))  # without comments
    text = command("--config-dir", str(tmp_path / "mine"), "--help", "optimizer=bare").out
    assert rows(text)["optimizer.schedule"].endswith("Choices: constant, cosine, linear, exponential, stages.")


@pytest.mark.parametrize("choice", [*CHOICES, "sweep", "search", "report"])
def test_every_key_of_every_choice_is_explained(choice: str) -> None:
    section, _, name = choice.partition("=")
    config: Any = OmegaConf.to_container(compose([choice] if name else []), resolve=False)
    lines = {line.key: line.comment for line in lines_of([CONF], section, name or None)}
    keys = [key for key in flatten({section: config[section]}) if not key.endswith("_target_")]
    assert [key for key in keys if not (lines.get(key) or documented(section, key, config))] == []


def test_the_plain_help_names_this_one(command: Command) -> None:
    assert "--help NAME explains every key" in command("--help").out
    assert set(groups()) == {"model", "data", "optimizer", "trainer", "evaluation", "experiment"}
