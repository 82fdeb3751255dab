"""`python -m tinytorch_course` is the command `tinytorch`."""

import sys

from .cli import main

sys.exit(main())
