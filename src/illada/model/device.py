"""Which device to compute on."""

import torch


def choose_device(name: str) -> torch.device:
    """The device called `name`; auto: the first GPU, else the CPU.

    Raises:
        ValueError: torch knows no such device, or it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device
