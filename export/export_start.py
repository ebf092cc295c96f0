"""The start of the commands that convert models."""

import contextlib
import logging
from collections.abc import Iterator

from iterconv.command_errors import UserError
from iterconv.command_start import load_quietly


@contextlib.contextmanager
def importing_converters(purpose: str) -> Iterator[None]:
    """Load TensorFlow without its messages, and name the extra `export` where an import fails.

    The modules that need the extra are imported within, so that other commands run without it.

    Args:
        purpose: What needs the extra, the subject of the message.

    Raises:
        UserError: An import in this context failed.
    """
    load_quietly()
    # The ONNX converter calls deprecated functions, about which TensorFlow warns.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        yield
    except ImportError as error:
        raise UserError(
            f'{error}: {purpose} needs `pip install "keras-iterconv[export]"`'
        ) from error
