"""PyTorch's side of benchmarks, in a process of its own: `python scripts/bench_torch.py vae:32 ROWS EPOCHS`.

PyTorch's idle threads spin, and would take a core from the other side. The data, the networks, the first parameters'
distributions and Adam's numbers are those of `bench_own.py`. The interpreter needs PyTorch and NumPy alone.
"""

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

STEPS, CHANNELS, HIDDEN, LATENT, BATCH = 100, 6, 64, 16, 64  # of the recurrent autoencoders


def train(name: str, rows: int, epochs: int) -> dict[str, Any]:
    """Samples per second of every epoch but the first, and the mean loss of the last epoch.

    Args:
      name: `vae:BATCH`, the dense VAE at a batch size, or a cell, an autoencoder of sequences.
    """
    import torch  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    kind, _, batch_size = name.partition(":")
    batch = int(batch_size or BATCH)
    parameters, loss_of = vae() if kind == "vae" else autoencoder(kind)
    shape = (784,) if kind == "vae" else (STEPS, CHANNELS)
    pixels = np.random.default_rng(0).integers(0, 256, (rows, *shape), np.uint8)
    data = torch.from_numpy(pixels.astype(np.float32) / 255)
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    rates, mean = [], 0.0
    for _ in range(epochs):
        started, losses = time.perf_counter(), []
        order = torch.randperm(rows)
        for start in range(0, rows - batch + 1, batch):
            loss = loss_of(data[order[start : start + batch]])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        mean = torch.stack(losses).mean().item()
        rates.append(rows // batch * batch / (time.perf_counter() - started))
    return {"rates": rates[1:], "loss": mean}


def vae() -> tuple[list[Any], Callable[[Any], Any]]:
    """The dense VAE 784-200-200-50: its parameters, and its loss of a batch in nats."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    encoder = nn.Sequential(nn.Linear(784, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 100))
    decoder = nn.Sequential(nn.Linear(50, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 784))
    for layer in (*encoder, *decoder):
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def loss(x: Any) -> Any:
        mean, log_variance = encoder(x).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        reconstruction = nn.functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum()
        return (reconstruction + kl) / len(x)

    return [*encoder.parameters(), *decoder.parameters()], loss


def autoencoder(cell: str) -> tuple[list[Any], Callable[[Any], Any]]:
    """The autoencoder of sequences with one code: its parameters, and its mean squared error of a batch."""
    from torch import nn  # pyright: ignore[reportMissingImports]

    layer = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell]
    encoder, decoder = layer(CHANNELS, HIDDEN, batch_first=True), layer(LATENT, HIDDEN, batch_first=True)
    code, output = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, CHANNELS)
    for part in (encoder, decoder):
        nn.init.normal_(part.weight_ih_l0, std=part.input_size**-0.5)
        for gate in part.weight_hh_l0.data.split(HIDDEN):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(part.bias_ih_l0)
        nn.init.zeros_(part.bias_hh_l0)
        if cell == "lstm":
            part.bias_ih_l0.data[HIDDEN : 2 * HIDDEN] = 1.0  # the gates are input, forget, cell, output
    for linear in (code, output):
        nn.init.normal_(linear.weight, std=HIDDEN**-0.5)
        nn.init.zeros_(linear.bias)

    def loss(x: Any) -> Any:
        z = code(encoder(x)[0][:, -1])
        reconstruction = output(decoder(z[:, None].expand(-1, STEPS, -1))[0])
        return nn.functional.mse_loss(reconstruction, x)

    return [weight for part in (encoder, decoder, code, output) for weight in part.parameters()], loss


def main() -> None:
    if importlib.util.find_spec("torch") is None:
        print(json.dumps({"missing": "not installed: pip install torch"}))
        return
    name, rows, epochs = sys.argv[1:]
    print(json.dumps(train(name, int(rows), int(epochs))))


if __name__ == "__main__":
    main()
