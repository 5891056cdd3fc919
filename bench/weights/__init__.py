"""The pretrained files that metrics and models need: one list, one place to look, a hash checked before every use.

The libraries fetch weights on first use and load whatever lies in their cache without looking at it. Here a file
is used only if its SHA-256 is the listed one, so a number always comes from the weights that its identity names.
Files are looked for in ``--weights-dir``, then in the folder named by ``RFBENCH_WEIGHTS``, then in
``~/.cache/rfbench/weights``; small ones that a package carries are taken from that package. Nothing is ever fetched
while something is computed: ``rfbench weights fetch`` does that (``bench.weights.fetch``).

``listing`` is the list, ``search`` finds a file and looks at its hash, ``fetch`` brings files over ``transfer``. Of
files whose publisher gives no hash, ``rfbench weights fetch`` records the one that it met first, in
``FILE.recorded.json`` beside the file; from then on it is enforced like a listed one.
"""

from bench.weights.listing import (
    WHOLE_HASH,
    Users,
    WeightsFile,
    catalogue,
    entry_of,
    listed,
    megabytes,
    of_model,
    users,
)
from bench.weights.search import (
    ENVIRONMENT_VARIABLE,
    RECORDED,
    Recorded,
    find,
    folders,
    hash_of,
    identified,
    pinned,
    places,
    record,
    recorded,
    target,
)

__all__ = [
    "ENVIRONMENT_VARIABLE", "RECORDED", "WHOLE_HASH", "Recorded", "Users", "WeightsFile", "catalogue", "entry_of",
    "find", "folders", "hash_of", "identified", "listed", "megabytes", "of_model", "pinned", "places", "record",
    "recorded", "target", "users",
]  # fmt: skip
