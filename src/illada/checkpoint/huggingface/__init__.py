"""Folders in the layouts of published models: `config.json`, safetensors, `tokenizer.json`.

    layouts         what each layout calls the numbers of a ModelConfig and the tensors of a Transformer: data
    configuration   config.json <-> ModelConfig
    reader          a folder -> SavedModel
    writer          a SavedModel -> a folder to publish
    card, curves    what its README says
    hub             an id -> a folder in the hub's cache; a folder -> the hub

Code that comes with a folder is never run.
"""
