"""The schedule of a run: learning rate and crop size of every step."""

from dataclasses import dataclass, replace

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """The learning rate and the stage of every step.

    Args:
        steps: Length of the run; 0 while a time budget waits for its first throughput.
        warmup: Steps of the linear warm-up.
        decay_from: First step of the linear decay to zero.
        large_from: First step of stage 1.
        peak: Learning rate where the decay starts, relative to the full one.
    """

    steps: int = 0
    warmup: int = 200
    decay_from: int = 0
    large_from: int = 0
    peak: float = 1.0

    def lasting(self, steps: int, *, decay: float = 0.35, large: float = 0.175) -> "Plan":
        """Returns the plan whose last `decay` part decays and whose last `large` is stage 1."""
        decay_from, large_from = round(steps * (1 - decay)), round(steps * (1 - large))
        return replace(self, steps=steps, decay_from=decay_from, large_from=large_from)

    def finishing(self, step: int, remaining: int) -> "Plan":
        """Returns the plan that decays from `step` on and ends `remaining` steps later."""
        large_from = step + remaining // 2
        if self.steps:
            large_from = min(large_from, self.large_from)
        return Plan(step + remaining, self.warmup, step, large_from, self.rate(step))

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step, relative to the full one."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        if not self.steps or step < self.decay_from:
            return warm
        left = (self.steps - step) / max(self.steps - self.decay_from, 1)
        return min(warm, self.peak * left)

    def stage(self, step: int) -> int:
        """Returns 0 for small and 1 for large crops."""
        return int(self.steps > 0 and step >= self.large_from)
