"""From prompts to completions.

    canvas with holes -> plan of reveals -> [Transformer -> choose tokens -> unmask some] x steps -> text

`request` says what is asked and what comes back, `plan` how many holes each step fills, `choice` which token a hole
would get, `unmasking` which holes become text, and `sampler` runs the steps. Nothing here decides how the text looks.
"""
