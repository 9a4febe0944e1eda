"""Programs of other libraries, each in a process of its own: `python bench_rival_programs.py NAME ROWS.npz SETTINGS`.

They import NumPy and their own library alone. Rows are the training and validation rows of our run, already scaled.
Every program prints one line of JSON: `fit`, seconds of the fit as a user of the library calls it; `training`, seconds
of all epochs but the first, in which the library compiles, scaled to all epochs; `loss` of the validation rows, in the
unit of ours.
"""

import importlib.util
import json
import os
import sys
import tempfile
import time
from typing import Any

import numpy as np

NEEDS = {"keras": ("tensorflow", "keras"), "pythae": ("torch", "pythae"), "sklearn": ("sklearn",)}
PACKAGES = {"sklearn": "scikit-learn"}  # where a package has another name than its module


def missing(library: str) -> str | None:
    """What to install, in one line; None if all is there."""
    modules = [name for name in NEEDS[library] if importlib.util.find_spec(name) is None]
    absent = [str(PACKAGES.get(name, name)) for name in modules]
    return f"not installed: pip install {' '.join(absent)}" if absent else None


def seconds_of(started: float, ends: list[float]) -> dict[str, float]:
    """Seconds of the fit and of its training, from its start and the end of every epoch."""
    training = (ends[-1] - ends[0]) * len(ends) / (len(ends) - 1)
    return {"fit": time.perf_counter() - started, "training": training}


# ---------------------------------------------------------------------------------------------------------------- Keras


def keras_program(name: str, rows: dict[str, np.ndarray], settings: dict[str, Any]) -> dict[str, float]:
    """Compile, fit and evaluate a model of Keras on TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras  # pyright: ignore[reportMissingImports]

    keras.utils.set_random_seed(settings["seed"])
    ends: list[float] = []
    ticks = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    model, loss = keras_model(name, rows["x"].shape[1:])
    adam = keras.optimizers.Adam(1e-3, epsilon=1e-7)
    model.compile(optimizer=adam, loss=loss)
    targets = (rows["y"], rows["y_validation"]) if "y" in rows else (rows["x"], rows["x_validation"])
    budget = {"batch_size": settings["batch"], "epochs": settings["epochs"]}
    started = time.perf_counter()
    model.fit(rows["x"], targets[0], **budget, verbose=0, callbacks=[ticks])
    measured = seconds_of(started, ends)
    return measured | {"loss": float(model.evaluate(rows["x_validation"], targets[1], batch_size=500, verbose=0))}


def keras_model(name: str, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """A model of Keras and its loss. Kernels and biases start as ours do."""
    import keras  # pyright: ignore[reportMissingImports]
    from keras import layers  # pyright: ignore[reportMissingImports]

    def bernoulli(x: Any, logits: Any) -> Any:
        """Cross-entropy in nats, a sum over the elements of a row."""
        crossed = keras.ops.binary_crossentropy(x, logits, from_logits=True)
        return keras.ops.sum(crossed, axis=-1)

    def lstm(units: int, **options: Any) -> Any:
        return layers.LSTM(units, kernel_initializer="lecun_normal", recurrent_initializer=orthogonal_gates, **options)

    def linear(units: int) -> Any:
        return layers.Dense(units, kernel_initializer="lecun_normal")

    match name:
        case "dense_ae":
            return keras.Sequential([layers.Input(shape), layers.Dense(5, "relu"), layers.Dense(10)]), "mse"
        case "mnist_ae":
            return keras.Sequential([layers.Input(shape), layers.Dense(64, "relu"), layers.Dense(784)]), bernoulli
        case "deep_ae":
            hidden = [layers.Dense(width, "relu") for width in (32, 16)]
            back = [layers.Dense(width, "relu") for width in (16, 32)]
            return keras.Sequential([layers.Input(shape), *hidden, layers.Dense(8), *back, layers.Dense(64)]), "mse"
        case "lstm_regression":
            return keras.Sequential([layers.Input(shape), lstm(32), linear(1)]), "mse"
        case "lstm_ae":
            steps, channels = shape
            encoder = [layers.Input(shape), lstm(64), linear(16)]
            decoder = [layers.RepeatVector(steps), lstm(64, return_sequences=True), linear(channels)]
            return keras.Sequential([*encoder, *decoder]), "mse"
        case _:
            return keras_vae(), bernoulli


def orthogonal_gates(shape: tuple[int, int], dtype: Any = None) -> Any:
    """An orthogonal matrix for every gate, side by side, as our cells start. Keras' own is one matrix of all gates."""
    import keras  # pyright: ignore[reportMissingImports]

    size, gates = shape[0], shape[1] // shape[0]
    blocks = [keras.initializers.Orthogonal()((size, size), dtype) for _ in range(gates)]
    return keras.ops.concatenate(blocks, axis=1)


def keras_vae() -> Any:
    """A VAE 784-500-20 as in Keras' tutorials: a layer that draws the code and adds the KL to the loss."""
    import keras  # pyright: ignore[reportMissingImports]
    from keras import layers, ops  # pyright: ignore[reportMissingImports]

    class Draw(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.seed = keras.random.SeedGenerator(0)

        def call(self, inputs: Any) -> Any:
            mean, log_variance = ops.split(inputs, 2, axis=-1)
            kl = 0.5 * ops.sum(mean**2 + ops.exp(log_variance) - log_variance - 1, axis=-1)
            self.add_loss(ops.mean(kl))
            return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seed)

    encoder = [layers.Input((784,)), layers.Dense(500, "relu"), layers.Dense(40), Draw()]
    return keras.Sequential([*encoder, layers.Dense(500, "relu"), layers.Dense(784)])


# ---------------------------------------------------------------------------------------------- pythae and scikit-learn


def pythae_program(name: str, rows: dict[str, np.ndarray], settings: dict[str, Any]) -> dict[str, float]:
    """The VAE 784-500-20 with the trainer of pythae."""
    del name
    import torch  # pyright: ignore[reportMissingImports]
    from pythae.data.datasets import BaseDataset  # pyright: ignore[reportMissingImports]
    from pythae.models import VAE, VAEConfig  # pyright: ignore[reportMissingImports]
    from pythae.models.base.base_utils import ModelOutput  # pyright: ignore[reportMissingImports]
    from pythae.models.nn import BaseDecoder, BaseEncoder  # pyright: ignore[reportMissingImports]
    from pythae.trainers import BaseTrainer, BaseTrainerConfig  # pyright: ignore[reportMissingImports]
    from pythae.trainers.training_callbacks import TrainingCallback  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.code = nn.Linear(784, 500), nn.Linear(500, 40)

        def forward(self, x: Any) -> Any:
            mean, log_variance = self.code(torch.relu(self.hidden(x))).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.output = nn.Linear(20, 500), nn.Linear(500, 784)

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.output(torch.relu(self.hidden(z)))))

    ends: list[float] = []

    class Ticks(TrainingCallback):
        def on_epoch_end(self, *arguments: Any, **named: Any) -> None:
            ends.append(time.perf_counter())

    torch.manual_seed(settings["seed"])
    model = VAE(VAEConfig(input_dim=(784,), latent_dim=20, reconstruction_loss="bce"), Encoder(), Decoder())
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def dataset(x: np.ndarray) -> Any:
        return BaseDataset(torch.from_numpy(x), torch.zeros(len(x)))

    with tempfile.TemporaryDirectory() as folder:
        budget = {"num_epochs": settings["epochs"], "per_device_train_batch_size": settings["batch"]}
        config = BaseTrainerConfig(folder, **budget, learning_rate=1e-3, optimizer_params={"eps": 1e-7}, no_cuda=True)
        trainer = BaseTrainer(model, dataset(rows["x"]), training_config=config, callbacks=[Ticks()])
        started = time.perf_counter()
        trainer.train()
        measured = seconds_of(started, ends)
    model.eval()
    with torch.no_grad():
        return measured | {"loss": float(model({"data": torch.from_numpy(rows["x_validation"])}).loss)}


def sklearn_program(name: str, rows: dict[str, np.ndarray], settings: dict[str, Any]) -> dict[str, float]:
    """The autoencoder 784-64-784 as an MLPRegressor."""
    del name
    from sklearn.neural_network import MLPRegressor

    x = rows["x"]
    epochs, numbers = settings["epochs"], {"alpha": 0.0, "learning_rate_init": 1e-3, "epsilon": 1e-7, "tol": 0.0}
    budget: Any = {"batch_size": settings["batch"], "max_iter": epochs, "n_iter_no_change": epochs, **numbers}
    model = MLPRegressor(hidden_layer_sizes=(64,), random_state=settings["seed"], **budget)
    started = time.perf_counter()
    model.fit(x, x)
    seconds = time.perf_counter() - started  # nothing is compiled
    error = np.square(model.predict(rows["x_validation"]) - rows["x_validation"]).mean()
    return {"fit": seconds, "training": seconds, "loss": float(error)}


PROGRAMS = {"keras": keras_program, "pythae": pythae_program, "sklearn": sklearn_program}


def main() -> None:
    library, _, name = sys.argv[1].partition(":")
    absent = missing(library)
    if absent:
        print(json.dumps({"missing": absent}))
        return
    with np.load(sys.argv[2], allow_pickle=False) as file:
        rows = dict(file)
    print(json.dumps(PROGRAMS[library](name, rows, json.loads(sys.argv[3]))))


if __name__ == "__main__":
    main()
