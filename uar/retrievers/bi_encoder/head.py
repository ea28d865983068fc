"""The dense layers that some published models have after pooling."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from uar.errors import UserError
from uar.retrievers.transformer.published_files import model_file
from uar.storage.files import read_json, write_json

ACTIVATIONS, TANH = "torch.nn.modules.", "torch.nn.modules.activation.Tanh"  # the classes that a config may name begin so
INPUT = "sentence_embedding"
WEIGHTS = "model.safetensors"


class Dense(nn.Module):
    """A linear layer and what follows it, under the name that sentence-transformers' config gives it."""

    def __init__(self, linear: nn.Linear, activation: str) -> None:
        super().__init__()
        self.linear = linear
        self.activation: nn.Module = getattr(nn, activation.rpartition(".")[2])()

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.activation(self.linear(vectors))


def load_head(model: str, path: str, revision: str | None, folders: Sequence[str]) -> nn.Sequential:
    """Of the subfolders, in their order; nothing changes where there are none. Parameters are named after the activation too,
    so that whoever knows weights by name tells heads apart."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, folder in enumerate(folders):
        config_file, weights = (model_file(path, f"{folder}/{name}", revision) for name in ("config.json", WEIGHTS))
        if config_file is None or weights is None:
            raise UserError(f"retriever.model={model}: {folder} has no config.json or {WEIGHTS}; choose a model that has both")
        config = read_json(config_file)
        name = str(config.get("activation_function", TANH))
        other = config.get("use_residual") or config.get("module_input_name", INPUT) != INPUT
        if other or not name.startswith(ACTIVATIONS) or not hasattr(nn, name.rpartition(".")[2]):
            raise UserError(
                f"retriever.model={model}: {folder} is no linear layer with an activation of torch.nn; choose a model of an "
                "encoder, pooling, such layers and normalisation"
            )
        linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
        linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in load_file(weights).items()})
        layer = Dense(linear, name)
        layers[f"{number}_{type(layer.activation).__name__}"] = layer
    return nn.Sequential(layers)


def save_head(head: nn.Sequential, folder: Path, first: int) -> list[str]:
    """Subfolders as sentence-transformers has them, numbered from `first`; returns their names."""
    names = []
    for number, layer in enumerate(head, start=first):
        assert isinstance(layer, Dense)  # noqa: S101 for the type checker
        place = folder / f"{number}_Dense"
        linear, activation = layer.linear, type(layer.activation)
        write_json(
            place / "config.json",
            {
                "in_features": linear.in_features,
                "out_features": linear.out_features,
                "bias": linear.bias is not None,
                "activation_function": f"{activation.__module__}.{activation.__name__}",
            },
        )
        state = {f"linear.{name}": weight.detach().cpu().contiguous() for name, weight in linear.named_parameters()}
        save_file(state, place / WEIGHTS)
        names.append(place.name)
    return names


def out_features(head: nn.Sequential, pooled: int) -> int:
    """Of the vectors that come out where `pooled` go in."""
    return next((int(layer.linear.out_features) for layer in reversed(head) if isinstance(layer, Dense)), pooled)
