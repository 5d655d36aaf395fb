"""What the boundary costs from Python: the work of `tests/guests/boundary` and `boundary-json`."""

import rustmq
import work


@rustmq.batch
def boundary(rows, out, params):
    work.KINDS[params["work"]](rows, out)
