from wit_world import exports
from wit_world.imports import echo
from wit_world.imports.echo import Item


class Thrice(exports.Thrice):
    def thrice(self, item: Item) -> Item:
        return echo.echo(echo.echo(echo.echo(item)))
