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

    Blocks share the steps in proportion to their length, the earlier ones taking what does not divide; inside a block
    every step reveals as many, the first ones one more where that does not divide (LLaDA's `get_num_transfer_tokens`).
    So all `holes` are filled in exactly `steps` forwards whatever divides what. Fewer steps than blocks cannot stop
    at every block: then each step fills a run of whole blocks.

    A block never needs more steps than it has holes: steps beyond that are left out.
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
        plan += [PlannedStep(start=start, stop=stop, reveals=count) for count in reveals if count]
    return plan


def even_shares(total: int, parts: int) -> list[int]:
    """`total` in `parts` whole shares that differ by one at most, the larger ones first."""
    share, rest = divmod(total, parts)
    return [share + (number < rest) for number in range(parts)]


def _proportional_shares(steps: int, blocks: list[tuple[int, int]]) -> list[int]:
    """At least one step for each block, the others by length: largest remainder, ties to the left."""
    lengths = [stop - start for start, stop in blocks]
    spare = steps - len(blocks)
    quotas = [spare * length / sum(lengths) for length in lengths]
    shares = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(blocks)), key=lambda number: (shares[number] - quotas[number], number))
    for number in by_remainder[: spare - sum(shares)]:
        shares[number] += 1
    return [1 + share for share in shares]
