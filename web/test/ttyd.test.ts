// The subprotocol of ttyd: its frames, when it is spoken, and the link that speaks it.
// @vitest-environment node

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { TerminalLink, type Exit } from '../src/terminal/link';
import { decodeTtyd, encodePause, encodeResume, encodeTtydInput, encodeTtydOpening, encodeTtydResize, subprotocolFor } from '../src/terminal/ttyd';

const bytes = (text: string) => new Uint8Array(new TextEncoder().encode(text)).buffer;
const text = (frame: Uint8Array) => new TextDecoder().decode(frame);

describe('the codec of ttyd', () => {
  it('writes what a client says', () => {
    expect(text(encodeTtydOpening({ columns: 80, rows: 24 }))).toBe('{"AuthToken":"","columns":80,"rows":24}');
    expect(text(encodeTtydInput('ls\r'))).toBe('0ls\r');
    expect(text(encodeTtydResize({ columns: 9, rows: 8 }))).toBe('1{"columns":9,"rows":8}');
    expect(text(encodePause()) + text(encodeResume())).toBe('23');
  });
  it('reads what a server says, whatever it is', () => {
    expect(decodeTtyd(bytes('0hi'))).toEqual({ kind: 'output', bytes: new Uint8Array(bytes('hi')) });
    expect(decodeTtyd(bytes('1bash (skerry)'))).toEqual({ kind: 'title', title: 'bash (skerry)' });
    expect(decodeTtyd(bytes('2{ }'))).toEqual({ kind: 'preferences' });
    for (const frame of ['', '7{}', 'z']) expect(decodeTtyd(bytes(frame)), frame).toEqual({ kind: 'unknown' });
  });
});

describe('the choice', () => {
  it('follows the state', () => {
    expect(subprotocolFor('ttyd')).toBe('tty');
    for (const server of ['builtin', '', undefined]) expect(subprotocolFor(server)).toBe('workshop.tty.v1');
  });
});

class FakeSocket {
  static OPEN = 1;
  static all: FakeSocket[] = [];
  readyState = 1;
  sent: string[] = [];
  onopen?: () => void;
  onmessage?: (message: { data: ArrayBuffer }) => void;
  onclose?: (event: { code: number }) => void;
  constructor(readonly address: string, readonly protocol: string) { FakeSocket.all.push(this); }
  send(frame: Uint8Array) { this.sent.push(text(frame)); }
  close(code = 1006) { this.readyState = 3; this.onclose?.({ code }); }
  frame(data: string) { this.onmessage?.({ data: bytes(data) }); }
}

describe('the link to ttyd', () => {
  let shown = '';
  let waiting: (() => void)[] = [];
  let exits: Exit[] = [];
  const last = () => FakeSocket.all[FakeSocket.all.length - 1]!;
  const nothing = () => undefined;
  function start() {
    const link = new TerminalLink('ws://x/', { columns: 80, rows: 24 }, {
      write: (output, processed) => { shown += text(output); waiting.push(processed); },
      reset: () => (shown = ''),
    }, { state: nothing, hello: nothing, title: nothing, exit: (exit) => exits.push(exit), size: nothing }, () => 'ttyd');
    link.open();
    last().onopen?.();
    return link;
  }
  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal('WebSocket', FakeSocket);
    FakeSocket.all = [];
    shown = '';
    waiting = [];
    exits = [];
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  it('opens as a client of ttyd and begins each connection with an empty screen', () => {
    start();
    expect(last().protocol).toBe('tty');
    expect(last().sent).toEqual(['{"AuthToken":"","columns":80,"rows":24}']);
    last().frame('1bash');
    last().frame('0old');
    expect(shown).toBe('old');
    last().close();
    vi.advanceTimersByTime(400);
    last().onopen?.();
    last().frame('0new');
    expect(FakeSocket.all.length).toBe(2);
    expect(shown).toBe('new');
  });
  it('pauses above 512 KiB that wait for the screen and resumes below 128 KiB', () => {
    start();
    for (let at = 0; at < 9; at += 1) last().frame('0' + 'x'.repeat(65_536));
    expect(last().sent.slice(1)).toEqual(['2']);
    for (let at = 0; at < 7; at += 1) waiting[at]!();
    expect(last().sent.slice(1)).toEqual(['2']);
    waiting[7]!();
    expect(last().sent.slice(1)).toEqual(['2', '3']);
  });
  it('takes close code 1000 for the end of the shell, and the next key for the wish for another', () => {
    const link = start();
    last().frame('0$ ');
    expect(link.input('exit\r')).toBe(true);
    last().close(1000);
    vi.advanceTimersByTime(60_000);
    expect(exits).toEqual([{ code: 0, signal: null, restarting: false }]);
    expect(FakeSocket.all.length).toBe(1);
    link.input('x');
    expect(FakeSocket.all.length).toBe(2);
  });
});
