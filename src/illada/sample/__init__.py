"""From prompts to completions.

    request -> slot -> [ positions to compute -> Transformer -> tokens -> positions that become text ] x steps -> text

`engine` runs many requests at once, a step at a time. A step is two choices, each a small policy: `caching` says which
positions are computed anew, `unmasking` which masked ones become text. `request` says what is asked and what comes
back, `plan` how many holes a step fills, `choice` which token a hole would get. `sampler`, `writing` and `streaming`
are the ways in. Nothing here decides how the text looks.
"""
