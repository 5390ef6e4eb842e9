"""The states of all random number generators of a process, as data."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomState:
    """The states of Python's, numpy's and torch's generators at one moment.

    Attributes:
        python: Version, words and the second half of a normal pair.
        numpy: Name, words, position, and the second half of a normal pair.
        torch: Of the CPU.
        cuda: Of each GPU that this process has used.
    """

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: Tensor
    cuda: tuple[Tensor, ...]

    @classmethod
    def capture(cls) -> "RandomState":
        """Those of now."""
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        numpy_state = np.random.get_state(legacy=True)
        return cls(random.getstate(), tuple(numpy_state), torch.get_rng_state(), tuple(gpus))

    def restore(self) -> None:
        """Go on from here."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.cuda and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(list(self.cuda)[: torch.cuda.device_count()])

    @staticmethod
    def seed_all(*numbers: int) -> None:
        """Seed every generator with what is made of ``numbers``."""
        words = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
        seed = int(words[0]) << 31 ^ int(words[1])
        random.seed(seed)
        np.random.seed(int(words[1]))
        torch.manual_seed(seed)

    def to_dict(self) -> dict[str, Any]:
        """As tensors, numbers and strings, which a checkpoint holds."""
        version, words, gauss = self.python
        name, numpy_words, position, has_gauss, cached = self.numpy
        return {
            "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
            "numpy": [
                name,
                torch.from_numpy(numpy_words.astype(np.int64)),
                position,
                has_gauss,
                float(cached),
            ],
            "torch": self.torch,
            "cuda": list(self.cuda),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "RandomState":
        """What ``to_dict`` made."""
        version, words, gauss = state["python"]
        name, numpy_words, position, has_gauss, cached = state["numpy"]
        return cls(
            (version, tuple(words.tolist()), gauss),
            (name, numpy_words.numpy().astype(np.uint32), position, has_gauss, cached),
            state["torch"],
            tuple(state["cuda"]),
        )
