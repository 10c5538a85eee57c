"""`python -m ablate`: the command line."""

import sys

if not sys.flags.safe_path:
    # As for `python -m ablate.cli`: a stranger's module in the working folder is not ours.
    del sys.path[0]

from ablate.cli import main

main()
