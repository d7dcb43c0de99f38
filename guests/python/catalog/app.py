"""The shop's catalog: products and prices.

The products are the table below. The configuration's ``withdrawn``, SKUs separated by commas,
takes products out of it without a new build.
"""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.products import (
    CatalogError_Unavailable,
    CatalogError_UnknownSku,
    Product,
)
from wit_world.imports import store
from wit_world.imports.types import Money


def _product(sku: str, name: str, cents: int, tags: str, weight_grams: int | None) -> Product:
    return Product(sku, name, Money(cents, "EUR"), tags.split(), weight_grams)


PRODUCTS = {
    product.sku: product
    for product in (
        _product("cable", "USB-C cable, 2 m", 1290, "accessory usb", 60),
        _product("dock", "Docking station, 11 ports", 18900, "desk usb", 420),
        _product("gift-card", "Gift card", 5000, "gift", None),
        _product("headset", "Wireless headset", 12900, "audio wireless", 250),
        _product("keyboard", "Mechanical keyboard", 8990, "desk input usb", 980),
        _product("lamp", "Desk lamp with dimmer", 4550, "desk", 1350),
        _product("monitor", "27-inch monitor", 32900, "desk display", 5400),
        _product("mouse", "Wireless mouse", 3490, "desk input wireless", 95),
        _product("webcam", "Full HD webcam", 6990, "usb video", 160),
    )
}


class Products(exports.Products):
    def get(self, sku: str) -> Product:
        product = _on_sale().get(sku)
        if product is None:
            raise Err(CatalogError_UnknownSku(sku))
        return product

    def search(self, tag: str | None, limit: int | None) -> list[Product]:
        found = [product for product in _on_sale().values() if tag is None or tag in product.tags]
        return sorted(found, key=lambda product: product.sku)[:limit]


def _on_sale() -> dict[str, Product]:
    """What is sold now, read for each call so that it never outlives the configuration."""
    try:
        text = store.get("withdrawn") or ""
    except Err as failure:
        raise Err(CatalogError_Unavailable(f"config key `withdrawn`: {failure.value.value}"))
    withdrawn = {sku.strip() for sku in text.split(",")} - {""}
    if unknown := withdrawn - PRODUCTS.keys():
        raise Err(CatalogError_Unavailable(f"config key `withdrawn`: no product `{min(unknown)}`"))
    return {sku: product for sku, product in PRODUCTS.items() if sku not in withdrawn}
