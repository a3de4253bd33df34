"""A lean PyTorch training step of Learn2Perturb (joint) on ResNet-V1(20), to compare speeds with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Noise(nn.Module):
    def __init__(self, shape: tuple[int, int, int], per_example: bool) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.full(shape, 0.25))
        self.per_example = per_example

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.per_example:
            return torch.addcmul(x, torch.randn_like(x), self.theta)
        return x + self.theta * torch.randn_like(self.theta)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, strides: int, side: int, per_example: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, strides, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.noise = Noise((outputs, side, side), per_example)
        self.strides, self.missing = strides, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu_(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.strides > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.missing // 2, self.missing // 2))
        return F.relu_(self.noise(y + x))


class ResNet20(nn.Module):
    def __init__(self, per_example: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.noise = Noise((16, 32, 32), per_example)
        blocks, inputs = [], 16
        for outputs, side in ((16, 32), (32, 16), (64, 8)):
            for number in range(3):
                strides = 2 if outputs > 16 and number == 0 else 1
                blocks.append(Block(inputs, outputs, strides, side, per_example))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu_(self.noise(self.norm(self.stem((x - 0.47) / 0.2))))
        return self.dense(self.blocks(x).mean((2, 3)))


def make_step(images: np.ndarray, labels: np.ndarray, per_example: bool) -> Callable[[], None]:
    """A function that takes one step: PGD-7, then clean and adversarial loss, for W and theta of one backward pass."""
    model = ResNet20(per_example).to(memory_format=torch.channels_last)
    theta = [p for name, p in model.named_parameters() if name.endswith("theta")]
    others = [p for name, p in model.named_parameters() if not name.endswith("theta")]
    settings = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "foreach": True}
    optimizers = [torch.optim.SGD(others, weight_decay=1e-4, **settings), torch.optim.SGD(theta, **settings)]
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).float() / 255
    y = torch.from_numpy(labels).long()

    def attack() -> torch.Tensor:
        model.eval()
        model.requires_grad_(False)
        adversarial = (x + torch.empty_like(x).uniform_(-8 / 255, 8 / 255)).clamp_(0, 1)
        for _ in range(7):
            adversarial.requires_grad_(True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(adversarial), y, reduction="sum"), adversarial)
            with torch.no_grad():
                moved = (adversarial + 0.01 * gradient.sign() - x).clamp_(-8 / 255, 8 / 255)
                adversarial = (x + moved).clamp_(0, 1)
        model.requires_grad_(True)
        model.train()
        return adversarial.detach()

    def step() -> None:
        adversarial = attack()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = 0.5 * F.cross_entropy(model(x), y) + 0.5 * F.cross_entropy(model(adversarial), y)
        loss = loss - 1e-4 * sum(t.sqrt().sum() for t in theta)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            for t in theta:
                t.clamp_(min=0.01)

    return step
