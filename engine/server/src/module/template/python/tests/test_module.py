import unittest

import rustmq.testing
from module import clean


class Clean(unittest.TestCase):
    def test_readings_become_fahrenheit(self):
        out = rustmq.testing.run(clean, [{"sensor": "roof", "celsius": 20}, {"sensor": "cellar"}])
        self.assertEqual(out.json("out"), [{"sensor": "roof", "fahrenheit": 68.0}])
        self.assertEqual((out.rejects[0].row, out.rejects[0].code), (1, "no-value"))
