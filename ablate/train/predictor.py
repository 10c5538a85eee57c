"""A trained network put to use: from the bytes of an image file, or pixels, to the probability of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ablate.data.files.header import Unusable
from ablate.data.files.pixels import image_array, read_image, resize_image
from ablate.errors import AblateError, ResultsError
from ablate.records.files import MOST_WEIGHTS, read_file
from ablate.records.store import TrialFolder
from ablate.registry import MODELS
from ablate.study.components import create
from ablate.train.checkpoint import load_plain
from ablate.train.network import upsampled
from ablate.train.outcome import ModelCard
from ablate.wording import count_of


class Normalised(nn.Module):
    """A network that takes images float32 (N, channels, H, W) in 0..1 and normalises them itself; returns logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.network = network
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(card, name), dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes, H, W)."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


class Predictor:
    """The best network of a trial, in evaluation mode on `device`."""

    def __init__(self, folder: TrialFolder, device: str = "cpu") -> None:
        """Load the network; `ResultsError` where its weights were not kept or are not those of its settings."""
        self.card = read_card(folder)
        try:
            weights = load_plain(read_file(folder.best, MOST_WEIGHTS))
            classes = len(self.card.classes)
            network = create(MODELS, self.card.model, in_channels=self.card.in_channels, num_classes=classes)
            network.load_state_dict(weights)
        except (AblateError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise ResultsError(f"the weights cannot be used ({reason})", file=str(folder.best)) from None
        self.device = torch.device(device)
        self.model = Normalised(network, self.card).eval().to(self.device)

    def prepared(self, pixels: np.ndarray) -> Tensor:
        """Return pixels (h, w, bands) as the network takes them: float32 (1, channels, H, W) in 0..1.

        Raises `Unusable` for another number of channels, and for 16 bits where the network was trained on 8.
        """
        card = self.card
        if pixels.dtype != np.uint8 and card.window is None:
            raise Unusable(f"of {8 * pixels.itemsize} bits, while the network was trained on 8")
        if pixels.shape[2] != card.in_channels and not {pixels.shape[2], card.in_channels} <= {1, 3}:
            cure = "give bands that are files of their own by a quoted pattern, such as 'new/*_{red,green,nir}.tif'"
            fault = f"with {count_of(pixels.shape[2], 'channel')}, while the network takes {card.in_channels}"
            raise Unusable(fault, cure if pixels.shape[2] == 1 else "")
        image = image_array(pixels, card.in_channels, card.window, card.white > 255)
        image = resize_image(image, card.size).astype(np.float32) / card.white
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None]).to(self.device)

    @torch.no_grad()
    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probability of each class, float32 (classes, h, w), at the size of `pixels` (h, w, bands).

        The image enters at the size that was trained at; its logits are enlarged bilinearly, as for native scores.
        """
        logits = upsampled(self.model(self.prepared(pixels)).float(), pixels.shape[:2])
        shares = logits.sigmoid() if self.card.multilabel else logits.softmax(1)
        found: np.ndarray = shares[0].cpu().numpy()
        return found

    def of_files(self, paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels of an image of one file, or of one a band, and their probabilities.

        Raises `Unusable` where a file cannot be read, and for bands that differ in size or bits.
        """
        bands = []
        for path in paths:
            try:
                bands.append(read_image(read_file(path)))
            except OSError as error:
                which = f"whose band {path}" if len(paths) > 1 else "that"
                raise Unusable(f"{which} cannot be read ({error.strerror})") from None
        if len({(band.shape[:2], band.dtype) for band in bands}) > 1:
            raise Unusable("whose bands differ in size or bits")
        pixels = np.concatenate(bands, axis=2)
        return pixels, self.probabilities(pixels)


def read_card(folder: TrialFolder) -> ModelCard:
    """Return what `best.json` says; `ResultsError` where a trial kept no network, or an older version made it."""
    if not folder.best.exists():
        cure = "a study keeps them unless it says run: {keep: none}"
        raise ResultsError("the weights of this trial were not kept", file=str(folder.path), cure=cure)
    try:
        return ModelCard.model_validate_json(read_file(folder.card))
    except FileNotFoundError:
        cure = "delete record.json in it and run the study again: that writes best.json beside best.pt"
        raise ResultsError("made before classes were kept beside weights", file=str(folder.path), cure=cure) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ResultsError(f"damaged: {first['loc']}: {first['msg']}", file=str(folder.card)) from None
