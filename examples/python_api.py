"""Train a very small model on one text file, then let it write and fill a gap.

Run it with a text of your own, the longer the better:

    python examples/python_api.py book.txt

It takes less than a minute on a CPU, and leaves checkpoints and metrics in the folder that --out names. A model this
small, trained this briefly, has learnt which tokens are frequent and little more; what it shows is how the parts are
called.
"""
# an example prints what it has to show

import argparse
from dataclasses import replace
from pathlib import Path

import illada
from illada.data.corpus import CorpusConfig
from illada.recipes.pretraining import tiny
from illada.train.pretrain import PretrainConfig, run


def small_config(text: Path, *, steps: int) -> PretrainConfig:
    """The recipe `tiny`, with the sizes cut down; every field of a configuration can be replaced like this."""
    recipe = tiny()
    return replace(
        recipe,
        model=illada.ModelConfig(hidden_size=64, layers=2, heads=4, kv_heads=2, ffn_size=160, max_length=256),
        corpus=CorpusConfig(sources=(str(text),), vocab_size=512, workers=1),
        packing=replace(recipe.packing, length=64),
        loop=replace(recipe.loop, steps=steps, validate_every=0, checkpoint_every=steps),
        held_out=replace(recipe.held_out, rows=16, samples=2),
    )


def main() -> None:
    """Train, generate, infill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a text file to train on")
    parser.add_argument("--out", type=Path, default=Path("runs/example"), help="the run folder (new)")
    parser.add_argument("--steps", type=int, default=300, help="optimisation steps")
    chosen = parser.parse_args()

    config = small_config(chosen.text, steps=chosen.steps)
    outcome = run(config, chosen.out, cache=chosen.out / "cache")
    print(f"trained {outcome.steps} steps: {outcome.checkpoint}")

    model = illada.load(outcome.checkpoint)
    completion = model.generate("The ", length=32, block_length=16, temperature=0.7, seed=1)
    print(f"generated in {completion.forwards} forwards: {completion.text!r}")
    print(f"each token was revealed in forward: {completion.revealed_at}")

    # several prompts share their forwards; each gives what it would give alone
    for short in model.generate(["The ", "A "], illada.SamplingParams(length=8, steps=4)):
        print(f"a short one: {short.text!r}, {short.finish_reason}")

    middle = model.infill("The ", " of the", length=4)
    print(f"filled in: {middle.text!r}")


if __name__ == "__main__":
    main()
