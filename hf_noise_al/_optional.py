"""Libraries that only some users need: imported when used, with an error that says what to install."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Return `module`, imported now, for a feature that the installation extra `extra` brings.

    A module that is missing, or that cannot be loaded, raises `ImportError` with the command that installs it.

    >>> require("json", "plot").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"Cannot import `{module}` ({error}). Install it with `pip install 'hf-noise-al[{extra}]'`, "
            f"or `{module.partition('.')[0]}` by itself.",
            name=module,
        ) from error
