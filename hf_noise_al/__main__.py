"""`python -m hf_noise_al`, and `accelerate launch -m hf_noise_al`."""

import sys

from .commands.main import main

if __name__ == "__main__":
    sys.exit(main())
