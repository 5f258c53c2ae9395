"""The command that shows what the library does: demo."""

from dataclasses import dataclass
from pathlib import Path

from ..demo import demo
from ..devices import device_named

__all__ = ["Demo"]


@dataclass(frozen=True)
class Demo:
    """Restore five photographs with several methods; write a page, a picture and a table.

    Args:
        out: Folder for the results.
        prior: A prior that ships, or a weight file.
        seed: Seed of the noise and of the draws.
        device: cpu, cuda, or auto.
        quiet: Print nothing but errors.
    """

    out: Path = Path("demo-output")
    prior: str = "natural-color"
    seed: int = 0
    device: str = "auto"
    quiet: bool = False

    def __call__(self, command: list[str]) -> int:
        found = demo(
            self.out,
            prior=self.prior,
            seed=self.seed,
            device=device_named(self.device),
            quiet=self.quiet,
        )
        if not self.quiet:
            print(found)
        return 0
