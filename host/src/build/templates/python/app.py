from wit_world import exports


class Greetings(exports.Greetings):
    def greet(self, who: str) -> str:
        return f"Hello, {who}!"
