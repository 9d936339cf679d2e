// The frames of the subprotocol `tty` of ttyd, both ways, and when its client asks for a pause. Pure.

import { SUBPROTOCOL, decodeText, encodeInput, encodeResize, type Size } from './codec';

export const TTYD_SUBPROTOCOL = 'tty';

/** What to speak with the terminal that `state.terminal.server` names. */
export function subprotocolFor(server: string | undefined): string {
  return server === 'ttyd' ? TTYD_SUBPROTOCOL : SUBPROTOCOL;
}

export type TtydFrame =
  | { kind: 'output'; bytes: Uint8Array }
  | { kind: 'title'; title: string }
  | { kind: 'preferences' }
  | { kind: 'unknown' };

/** The first frame. The cookie of the request has said who this is already, so the token is empty. */
export function encodeTtydOpening({ columns, rows }: Size): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new TextEncoder().encode(JSON.stringify({ AuthToken: '', columns, rows })));
}

// Input and size are written the same way in both protocols.
export const encodeTtydInput = encodeInput;
export const encodeTtydResize = encodeResize;

export const encodePause = (): Uint8Array<ArrayBuffer> => Uint8Array.of(0x32);
export const encodeResume = (): Uint8Array<ArrayBuffer> => Uint8Array.of(0x33);

/** Never throws: what cannot be read is `unknown`. Preferences of the image are not followed. */
export function decodeTtyd(frame: ArrayBuffer): TtydFrame {
  const bytes = new Uint8Array(frame);
  const body = bytes.subarray(1);
  switch (bytes[0]) {
    case 0x30:
      return { kind: 'output', bytes: body };
    case 0x31:
      return { kind: 'title', title: decodeText(body).slice(0, 200) };
    case 0x32:
      return { kind: 'preferences' };
    default:
      return { kind: 'unknown' };
  }
}

const PAUSE_ABOVE = 512 * 1024;
const RESUME_BELOW = 128 * 1024;

/** Counts the bytes that a screen has not processed; answers with the frame to send, if one is due. */
export class Pressure {
  #pending = 0;
  #paused = false;

  received(bytes: number): Uint8Array<ArrayBuffer> | null {
    this.#pending += bytes;
    if (this.#paused || this.#pending <= PAUSE_ABOVE) return null;
    this.#paused = true;
    return encodePause();
  }

  processed(bytes: number): Uint8Array<ArrayBuffer> | null {
    this.#pending -= bytes;
    if (!this.#paused || this.#pending >= RESUME_BELOW) return null;
    this.#paused = false;
    return encodeResume();
  }
}
