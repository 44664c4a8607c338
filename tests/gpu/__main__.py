"""`python -m gpu`, with the repository and its tests on the path: what `.ci/run gpu` runs."""

import signal
import sys

from gpu.check import main

signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    sys.exit(main())
except KeyboardInterrupt:  # the step that was running has ended, too
    sys.exit(130)
