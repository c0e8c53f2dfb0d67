"""An analysis in a process that a test kills."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from tests.storage.test_s3 import quick

    quick(sys.argv[1])
