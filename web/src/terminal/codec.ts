// The frames of the subprotocol workshop.tty.v1, both ways. Pure: bytes in, values out.

export const SUBPROTOCOL = 'workshop.tty.v1';

export interface Size {
  columns: number;
  rows: number;
}

export interface Resume {
  session: string;
  offset: number;
}

export interface Hello extends Size {
  session: string;
  offset: number;
  viewers: number;
  reset: boolean;
}

export type ServerFrame =
  | { kind: 'hello'; hello: Hello }
  | { kind: 'output'; offset: number; bytes: Uint8Array }
  | { kind: 'title'; title: string }
  | { kind: 'exit'; code: number | null; signal: string | null; restarting: boolean }
  | { kind: 'resynchronised'; offset: number }
  | { kind: 'size'; size: Size }
  | { kind: 'unknown' };

const encoder = new TextEncoder();
const decoder = new TextDecoder();

const INPUT = 0x30;
const RESIZE = 0x31;
const ACKNOWLEDGE = 0x34;

export const decodeText = (bytes: Uint8Array): string => decoder.decode(bytes);

function tagged(kind: number, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(1 + body.length);
  frame[0] = kind;
  frame.set(body, 1);
  return frame;
}

export function encodeOpening(size: Size, resume: Resume | null): Uint8Array<ArrayBuffer> {
  return new Uint8Array(encoder.encode(JSON.stringify({ ...size, resume })));
}

export function encodeInput(data: string | Uint8Array): Uint8Array<ArrayBuffer> {
  return tagged(INPUT, typeof data === 'string' ? encoder.encode(data) : data);
}

export function encodeResize(size: Size): Uint8Array<ArrayBuffer> {
  return tagged(RESIZE, encoder.encode(JSON.stringify(size)));
}

export function encodeAcknowledge(offset: number): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(9);
  frame[0] = ACKNOWLEDGE;
  new DataView(frame.buffer).setBigUint64(1, BigInt(offset));
  return frame;
}

/** Never throws: what cannot be read is `unknown`, since a container may send anything. */
export function decode(frame: ArrayBuffer): ServerFrame {
  const bytes = new Uint8Array(frame);
  const body = bytes.subarray(1);
  switch (bytes[0]) {
    case 0x30: {
      if (body.length < 8) return { kind: 'unknown' };
      const offset = Number(new DataView(frame, 1, 8).getBigUint64(0));
      return Number.isSafeInteger(offset) ? { kind: 'output', offset, bytes: body.subarray(8) } : { kind: 'unknown' };
    }
    case 0x31:
      return { kind: 'title', title: decoder.decode(body).slice(0, 200) };
    case 0x35: {
      const { code, signal, restarting } = object(body);
      return {
        kind: 'exit',
        code: typeof code === 'number' ? code : null,
        signal: typeof signal === 'string' ? signal.slice(0, 20) : null,
        restarting: restarting === true,
      };
    }
    case 0x36: {
      const offset = whole(object(body)['offset']);
      return offset === null ? { kind: 'unknown' } : { kind: 'resynchronised', offset };
    }
    case 0x37:
      return hello(object(body));
    case 0x38: {
      const size = sizeOf(object(body));
      return size ? { kind: 'size', size } : { kind: 'unknown' };
    }
    default:
      return { kind: 'unknown' };
  }
}

function hello(value: Record<string, unknown>): ServerFrame {
  const { session, viewers, reset } = value;
  const offset = whole(value['offset']);
  const size = sizeOf(value);
  if (typeof session !== 'string' || offset === null) return { kind: 'unknown' };
  return {
    kind: 'hello',
    hello: {
      session,
      offset,
      columns: size?.columns ?? 80,
      rows: size?.rows ?? 24,
      viewers: whole(viewers) ?? 1,
      reset: reset === true,
    },
  };
}

function object(body: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(decoder.decode(body));
    return value && typeof value === 'object' && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function whole(value: unknown): number | null {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : null;
}

function sizeOf(value: Record<string, unknown>): Size | null {
  const columns = whole(value['columns']);
  const rows = whole(value['rows']);
  if (!columns || !rows || columns > 1000 || rows > 1000) return null;
  return { columns, rows };
}
