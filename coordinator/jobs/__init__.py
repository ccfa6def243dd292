"""Back-distillation on Ray; the only package that imports Ray."""

import os

# Ray reports usage to its makers unless told not to before it is imported. An operator who
# sets the variable has the last word.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
