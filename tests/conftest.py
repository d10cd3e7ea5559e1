"""Settings every test runs under."""

import os

# Lightning's command line still calls what jsonargparse deprecates, and warnings are errors here.
os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"
