"""What a run does about steps that went wrong: recognise them, go back, and go on without what caused them.

A fault is a loss or a gradient that is no number, or a loss far above what it was. The run goes back to its last
checkpoint and passes over the examples of the step, as PaLM did (arXiv 2204.02311, section 5.1); where asked it goes on
with a lower learning rate, as LLaDA did after its loss was NaN (arXiv 2502.09992, section 2.2). What was done stands in
RUN/rollbacks.jsonl, so that a run that resumes does it again.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from illada.durable import write_text
from illada.track.sinks import read_jsonl

_SMOOTHING = 0.95
_STEPS_BEFORE_JUDGING = 20


@dataclass(frozen=True, kw_only=True)
class FaultConfig:
    """How a run deals with faults."""

    spike: float | None = None
    """A step is a fault when its loss is more than so many times the running mean; None: only when it is no number."""
    skip_steps: int = 1
    """Steps whose examples are passed over: the one at fault, and those before it."""
    rate_factor: float = 1.0
    """The learning rate behind a fault, as a part of what it was."""
    rollbacks: int = 3
    """Faults without a new checkpoint between them that end the run; 0: the first does."""
    pause_minutes: float = 10.0
    """How long a run waits for a disk that is full, trying again, before it leaves."""

    def __post_init__(self) -> None:
        """Refuse bounds below what is normal, and factors that would raise the rate."""
        if self.spike is not None and self.spike <= 1:
            raise ValueError(f"spike must be above 1, the running mean itself, got {self.spike}")
        if self.skip_steps < 1 or self.rollbacks < 0:
            raise ValueError(
                f"skip_steps must be at least 1 and rollbacks at least 0, got {self.skip_steps} and {self.rollbacks}"
            )
        if not 0 < self.rate_factor <= 1:
            raise ValueError(f"rate_factor must lie in (0, 1], got {self.rate_factor}")
        if not (math.isfinite(self.pause_minutes) and self.pause_minutes >= 0):
            raise ValueError(f"pause_minutes must be 0 or more, got {self.pause_minutes}")


class FaultyStepError(FloatingPointError):
    """A step that must not have happened; the state of the run is behind it, or already spoilt by it."""

    def __init__(self, what: str, *, step: int, examples: tuple[int, int]) -> None:
        super().__init__(
            f"{what} at step {step}: lower the learning rate and resume from the last checkpoint, or begin again"
        )
        self.what, self.step, self.examples = what, step, examples
        """What was seen; the step's number; (first, count) of the examples that it was trained on."""


@dataclass(kw_only=True)
class LossWatch:
    """Follows the loss of single steps; its fields are its state, plain numbers."""

    mean: float = 0.0
    steps: int = 0

    def read(self, loss: float, gradient_norm: float, config: FaultConfig) -> str | None:
        """Take the values of one step; what is wrong with them, if anything."""
        for name, value in (("loss", loss), ("norm of the gradient", gradient_norm)):
            if not math.isfinite(value):
                return f"the {name} is {value}"
        if config.spike is not None and self.steps >= _STEPS_BEFORE_JUDGING and loss > config.spike * self.mean:
            return f"the loss is {loss:.3f}, {loss / self.mean:.1f} times its running mean of {self.mean:.3f}"
        weight = max(1 - _SMOOTHING, 1 / (self.steps + 1))  # the first steps count alike
        self.mean += weight * (loss - self.mean)
        self.steps += 1
        return None


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """One return to a checkpoint."""

    step: int
    """The step at fault."""
    reason: str
    back_to: int
    """The step of the checkpoint."""
    first_example: int
    """The first that is passed over when its turn comes."""
    examples: int
    rate_factor: float

    def line(self) -> str:
        """What happened, for a person."""
        rate = "" if self.rate_factor == 1 else f", the learning rate is {self.rate_factor:g} of what it was"
        return (
            f"{self.reason} at step {self.step}: back to step {self.back_to}; the {self.examples} examples from number "
            f"{self.first_example} on are passed over{rate}"
        )


@dataclass(kw_only=True)
class Rollbacks:
    """All returns of a run, in order."""

    entries: list[Rollback] = field(default_factory=list)

    def add(self, entry: Rollback) -> None:
        """Note one more."""
        self.entries.append(entry)

    def examples_to_pass(self, example: int) -> int:
        """How many examples are passed over when `example` is the next."""
        ends = [entry.first_example + entry.examples for entry in self.entries if entry.first_example <= example]
        return max(0, *(end - example for end in ends)) if ends else 0

    def rate_factor(self, step: int) -> float:
        """What the learning rate of a step is multiplied by."""
        return math.prod((entry.rate_factor for entry in self.entries if step >= entry.back_to), start=1.0)

    def in_vain(self, back_to: int) -> int:
        """How many returns there were since the run came as far as a checkpoint of step `back_to`."""
        count = 0
        for entry in reversed(self.entries):
            if entry.back_to < back_to:
                break
            count += 1
        return count

    def save(self, path: Path) -> None:
        """Write all of them, in one rename."""
        write_text(path, "".join(json.dumps(asdict(entry)) + "\n" for entry in self.entries))


def read_rollbacks(path: Path) -> list[Rollback]:
    """What `Rollbacks.save` wrote; nothing where there is no such file."""
    return [Rollback(**entry) for entry in read_jsonl(path)] if path.exists() else []  # type: ignore[arg-type]  # as saved
