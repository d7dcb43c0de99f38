import unittest

from app import Greetings


class GreetingsTest(unittest.TestCase):
    def test_it_greets(self) -> None:
        self.assertEqual(Greetings().greet("you"), "Hello, you!")
