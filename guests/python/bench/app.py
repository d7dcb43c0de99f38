from wit_world import exports
from wit_world.exports.echo import Item


class Echo(exports.Echo):
    def echo(self, item: Item) -> Item:
        return item
