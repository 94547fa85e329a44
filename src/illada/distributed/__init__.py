"""Training on many devices: who is who, how a model is divided among them, and what they tell one another.

    torchrun -> processes.joined -> mesh.Mesh -> sharding.distribute -> the loop of `illada.train`

The loss, the noise and the order of the data do not depend on how many there are. Alone, everything here does nothing.
"""
