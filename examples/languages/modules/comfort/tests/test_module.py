import unittest

import rustmq.testing
from module import comfort


class Comfort(unittest.TestCase):
    def test_the_dew_point(self):
        roof = {"sensor": "roof", "celsius": 25.0, "humidity": 50.0}
        odd = {"sensor": "odd", "celsius": 1.0, "humidity": 0}
        attic = {"sensor": "attic", "celsius": 30.0, "humidity": 20}
        out = rustmq.testing.run(comfort, [roof, odd, attic], params={"digits": 1})
        self.assertEqual([row["dew_point"] for row in out.json()], [13.9, 4.6])
        self.assertEqual((out.rejects[0].row, out.rejects[0].code), (1, "humidity"))
        self.assertEqual(out.counters, {"dry": 1})
