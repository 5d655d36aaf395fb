"""What the boundary costs from Python: the work of `tests/guests/boundary`, `-json` and `-columns`."""

import rustmq
import work


@rustmq.batch(select=work.Flight, declare=work.Score)
def boundary(rows, out, params):
    work.KINDS[params["work"]](rows, out)
