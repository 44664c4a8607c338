"""`python -m gpu`, with the repository and its tests on the path: what `.ci/run gpu` runs."""

import sys

from gpu.check import main

sys.exit(main())
