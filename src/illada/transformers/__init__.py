"""Our models inside the library transformers: AutoConfig, AutoModel and AutoModelForMaskedLM know them.

    import illada                                             # registers, at no cost until transformers is imported
    from transformers import AutoModelForMaskedLM
    model = AutoModelForMaskedLM.from_pretrained("GSAI-ML/iLLaDA-8B-Base")

`hook` waits for transformers, `configuration` holds what config.json says, `modeling` the model and its masked-LM head
as thin classes over our own Transformer, `loading` reads and writes folders with our own reader and writer, and
`generation` hands `generate` over to our engine. Nothing but `hook` may be imported before transformers is wanted.
"""
