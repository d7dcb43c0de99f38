// What a service in TypeScript has besides the language's own. Generated when it is built.

declare class TextEncoder {
  readonly encoding: 'utf-8';
  encode(text?: string): Uint8Array;
  encodeInto(text: string, bytes: Uint8Array): { read: number; written: number };
}

declare class TextDecoder {
  constructor(label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean });
  readonly encoding: 'utf-8';
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  decode(bytes?: ArrayBuffer | ArrayBufferView, options?: { stream?: boolean }): string;
}

declare const console: {
  assert(fine: unknown, ...values: unknown[]): void;
} & Record<'debug' | 'dir' | 'error' | 'info' | 'log' | 'trace' | 'warn', (...values: unknown[]) => void>;

declare const crypto: {
  getRandomValues<T extends ArrayBufferView>(array: T): T;
  randomUUID(): string;
};

declare function atob(text: string): string;
declare function btoa(text: string): string;
declare const performance: { now(): number };
