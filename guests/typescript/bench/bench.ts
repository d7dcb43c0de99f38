import type { Item } from 'bay:bench/echo@1.0.0';

export const echo = {
  echo(item: Item): Item {
    return item;
  },
} satisfies typeof import('bay:bench/echo@1.0.0');
