"""NAME: a RustMQ module. One record in, one record out."""

import rustmq


@rustmq.map
def clean(reading):
    """Called for each record, with its value read from JSON.

    A `Reject` sends the record where the pipeline says: to a topic of dead letters, say. Its key, time
    and headers stay as they are.
    """
    if reading.get("celsius") is None:
        raise rustmq.Reject("no-value", "the reading has no temperature")
    return {"sensor": reading["sensor"], "fahrenheit": reading["celsius"] * 9 / 5 + 32}
