"""Models that the tests convert by `toy_models:FUNCTION`."""

from __future__ import annotations

import collections
import random

import torch
from torch import nn
from torch.nn import functional


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(image)))
        return self.head(torch.relu(self.depthwise(x)).mean((2, 3)))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(3, 8)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        joined = torch.relu(self.a(left) + self.b(right))
        return joined, joined * 0.5


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(self.conv(image))


class InverseError(Odd):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.erfinv(torch.tanh(self.conv(image)))


class Sorts(Odd):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.sort(self.conv(image).mean((2, 3)), 1)[0]


class Branches(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * 2 if image.sum() > 0 else image


class Waveform(nn.Module):
    """1-D: (N, C, L)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(3, 8, 5, padding=2), nn.Linear(8, 2)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(signal)).mean(2))


class Tokens(nn.Module):
    """Token ids and, optionally, what to leave out of the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.head = nn.Embedding(50, 8), nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, scale: float = 1.0
    ) -> torch.Tensor:
        x = torch.relu(self.hidden(self.embedding(ids))) * scale
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """State in, state out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 6), nn.Linear(6, 2)

    def forward(self, frame: torch.Tensor, state: torch.Tensor) -> dict[str, torch.Tensor]:
        state = self.cell(frame, state)
        return {"scores": self.head(state), "next_state": state}


class HeatMaps(nn.Module):
    """Two image outputs of different sizes from one image input, and a keyword-only input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)

    def forward(self, image: torch.Tensor, *, gain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = torch.relu(self.conv(image) * gain[:, :, None, None])
        return fine, self.down(fine)


class Memory(nn.Module):
    """A sequence through an LSTM or a GRU, whose state goes in and comes out."""

    def __init__(self, layer: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.layer, self.head = layer(16, 64, batch_first=True), nn.Linear(64, 5)

    def forward(
        self, frames: torch.Tensor, state: torch.Tensor, cell: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        if cell is None:
            out, state = self.layer(frames, state)
            return {"scores": self.head(out[:, -1]), "next_state": state}
        out, (state, cell) = self.layer(frames, (state, cell))
        return {"scores": self.head(out[:, -1]), "next_state": state, "next_cell": cell}


class Sequence(nn.Module):
    """A sequence through an LSTM that begins anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(24, 64, batch_first=True), nn.Linear(64, 6)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        out, _ = self.layer(frames)
        return self.head(out[:, -1])


class Encoder(nn.Module):
    """Token ids through two transformer layers; scores are over the tokens, by the embedding's weight if tied."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(500, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 500)
        if tied:
            self.head.weight = self.embedding.weight
        # nn.TransformerEncoder copies one layer, which converters notice and share.
        for parameter in self.layers.parameters():
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embedding(ids)).mean(1))


class WritesInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(0.5)
        return self.head(x)


class AlwaysDrops(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return functional.dropout(image, 0.5, training=True)


class AddsNoise(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + torch.rand(1)


class DrawsInPython(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * random.random()  # the mistake that is looked for


class RemembersOutput(nn.Module):
    """Hidden state in an attribute of a submodule that starts as None."""

    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x if self.last is None else x + 0.5 * self.last
            self.last = x.detach()
            return x

    def __init__(self) -> None:
        super().__init__()
        self.memory = self.Memory()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.memory(image)


class AveragesBuffer(nn.Module):
    average: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.average.mul_(0.9).add_(0.1 * image.mean())
        return image - self.average


class ComparesFrames(nn.Module):
    """The same sample twice gives the same twice: another one between them tells."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: collections.deque[torch.Tensor] = collections.deque(maxlen=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        last = self.frames[-1] if self.frames else image
        self.frames.append(image)
        return image - last


class CountsCalls(nn.Module):
    """An attribute that changes and has no say in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.head = 0, nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(x)


class ExportsOtherwise(nn.Module):
    """What torch.export sees is not what runs."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image if torch.compiler.is_exporting() else image.abs()


class FixesAtFirst(nn.Module):
    """A Python value that is computed from each input, and that torch.export keeps as it was for the first."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * Peak.of(image)


class Peak:
    """Hides its computation from the tracer, as code that goes through another library does."""

    seen = 1.0

    @classmethod
    def of(cls, image: torch.Tensor) -> float:
        if not torch.compiler.is_exporting():
            cls.seen = float(image.max())
        return cls.seen


class ReadsItem(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.max().item() > 0:
            return image
        return -image


class Peculiar(nn.Module):
    """TorchScript that branches on the data: the archive runs, and torch.export cannot take it over."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        total = 0.0
        while total < 10.0:
            total = total + float(image.abs().sum()) + 1.0
        return image * total


def waveform() -> nn.Module:
    torch.manual_seed(0)
    return Waveform()


def tokens() -> nn.Module:
    torch.manual_seed(0)
    return Tokens()


def recurrent() -> nn.Module:
    torch.manual_seed(0)
    return Recurrent()


def heat_maps() -> nn.Module:
    torch.manual_seed(0)
    return HeatMaps()


def lstm() -> nn.Module:
    torch.manual_seed(0)
    return Memory(nn.LSTM)


def plain_lstm() -> nn.Module:
    torch.manual_seed(0)
    return Sequence()


def gru() -> nn.Module:
    torch.manual_seed(0)
    return Memory(nn.GRU)


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return Encoder(tied=False)


def tied_encoder() -> nn.Module:
    torch.manual_seed(0)
    return Encoder(tied=True)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 8))


def remembers() -> nn.Module:
    return RemembersOutput()


def fails() -> nn.Module:
    raise RuntimeError("no such checkpoint\nwith a second line")


def small() -> nn.Module:
    torch.manual_seed(0)
    return Small()


def two_inputs() -> nn.Module:
    torch.manual_seed(0)
    return TwoInputs()


def odd() -> nn.Module:
    return Odd()


def inverse_error() -> nn.Module:
    return InverseError()


def sorts() -> nn.Module:
    return Sorts()


def branches() -> nn.Module:
    return Branches()


def no_model() -> int:
    return 3


class Uneven(nn.Module):
    """Channels that lie decades apart; through a hard-swish they cannot be rescaled."""

    def __init__(self, decades: float = 1.5) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 16), nn.Hardswish(), nn.Linear(16, 16), nn.Hardswish())
        self.head = nn.Linear(16, 4)
        with torch.no_grad():
            for layer, after in ((self.body[0], self.body[2]), (self.body[2], self.head)):
                factors = torch.logspace(-decades, 0.5, 16)[torch.randperm(16)]
                layer.weight.mul_(factors[:, None])
                layer.bias.mul_(factors)
                after.weight.div_(factors)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))
