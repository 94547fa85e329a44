"""How many holes every step fills: the part of sampling that is known before the first forward."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """One forward: it reveals `reveals` of the holes number `start` .. `stop - 1`, counted from the left."""

    start: int
    stop: int
    reveals: int


def reveal_plan(holes: int, *, block_length: int, steps: int) -> list[PlannedStep]:
    """Spread `steps` forwards over blocks of holes, left to right.

    Every block takes one step and the others are shared in proportion to the holes it has beyond one, so that none
    gets more steps than holes; inside a block every step reveals as many, the first ones one more where that does not
    divide (LLaDA's `get_num_transfer_tokens`). So all `holes` are filled in exactly `steps` forwards whatever divides
    what. Fewer steps than blocks cannot stop at every block: then each step fills a run of whole blocks.

    Steps beyond one per hole have nothing to reveal: they are left out.
    """
    blocks = [(start, min(start + block_length, holes)) for start in range(0, holes, block_length)]
    if steps < len(blocks):
        sizes = even_shares(len(blocks), steps)
        merged = []
        for size in sizes:
            taken, blocks = blocks[:size], blocks[size:]
            merged.append((taken[0][0], taken[-1][1]))
        blocks = merged
    plan = []
    for (start, stop), share in zip(blocks, _proportional_shares(steps, blocks), strict=True):
        reveals = even_shares(stop - start, share)
        plan += [PlannedStep(start=start, stop=stop, reveals=count) for count in reveals]
    return plan


def even_shares(total: int, parts: int) -> list[int]:
    """`total` in `parts` whole shares that differ by one at most, the larger ones first."""
    share, rest = divmod(total, parts)
    return [share + (number < rest) for number in range(parts)]


def _proportional_shares(steps: int, blocks: list[tuple[int, int]]) -> list[int]:
    """One step for each block, the others by the holes beyond one: largest remainder, ties to the left."""
    room = [stop - start - 1 for start, stop in blocks]
    # a share in proportion to this room never exceeds it; in proportion to the lengths, a short block would get
    # steps that it cannot use
    spare = min(steps - len(blocks), sum(room))
    quotas = [spare * more / max(sum(room), 1) for more in room]
    shares = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(blocks)), key=lambda number: (shares[number] - quotas[number], number))
    for number in by_remainder[: spare - sum(shares)]:
        shares[number] += 1
    return [1 + share for share in shares]
