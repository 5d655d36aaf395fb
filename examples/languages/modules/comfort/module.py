"""The second of three: adds the dew point."""

import math

import rustmq

PARAMS = {
    "type": "object",
    "properties": {"digits": {"type": "integer", "minimum": 0, "description": "Digits that are kept."}},
    "additionalProperties": False,
}

dry = rustmq.Counter("dry")


@rustmq.map(params=PARAMS)
def comfort(reading, params):
    celsius, humidity = reading["celsius"], reading["humidity"]
    if not 0 < humidity <= 100:
        raise rustmq.Reject("humidity", f"{humidity} % is no humidity")
    if humidity < 30:
        dry.add()
    gamma = math.log(humidity / 100) + 17.62 * celsius / (243.12 + celsius)
    dew_point = 243.12 * gamma / (17.62 - gamma)
    return {**reading, "dew_point": round(dew_point, params.get("digits", 2))}
