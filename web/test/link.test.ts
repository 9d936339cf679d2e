// The terminal's link against a server that cuts, loses, doubles and starts anew.
// @vitest-environment node

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { TerminalLink } from '../src/terminal/link';

class FakeSocket {
  static OPEN = 1;
  static all: FakeSocket[] = [];
  readyState = 0;
  binaryType = '';
  sent: Uint8Array[] = [];
  onopen?: () => void;
  onmessage?: (message: { data: ArrayBuffer }) => void;
  onclose?: (event?: { code: number }) => void;
  constructor(readonly address: string, readonly protocol: string) { FakeSocket.all.push(this); }
  send(frame: Uint8Array) { this.sent.push(frame); }
  close(code = 1006) { this.readyState = 3; this.onclose?.({ code }); }
  accept() { this.readyState = 1; this.onopen?.(); }
  text(kind: string, value: unknown) { this.onmessage?.({ data: new TextEncoder().encode(kind + JSON.stringify(value)).buffer }); }
  output(offset: number, text: string) {
    const body = new TextEncoder().encode(text);
    const frame = new Uint8Array(9 + body.length);
    frame[0] = 0x30;
    new DataView(frame.buffer).setBigUint64(1, BigInt(offset));
    frame.set(body, 9);
    this.onmessage?.({ data: frame.buffer });
  }
  get opening() { return JSON.parse(new TextDecoder().decode(this.sent[0])); }
  get acknowledged() { return this.sent.filter((frame) => frame[0] === 0x34).map((frame) => Number(new DataView(frame.buffer).getBigUint64(1))); }
}

let shown = '';
let states: string[] = [];
const last = () => FakeSocket.all[FakeSocket.all.length - 1]!;
const nothing = () => undefined;

function start() {
  const link = new TerminalLink('ws://x/', { columns: 80, rows: 24 }, {
    write: (bytes, processed) => { shown += new TextDecoder().decode(bytes); processed(); },
    reset: () => (shown = ''),
  }, { state: (state) => states.push(state), hello: nothing, title: nothing, exit: nothing, size: nothing });
  link.open();
  last().accept();
  return link;
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('WebSocket', FakeSocket);
  FakeSocket.all = [];
  shown = '';
  states = [];
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe('the link', () => {
  it('asks for its subprotocol and resumes nothing at first', () => {
    start();
    expect(last().protocol).toBe('workshop.tty.v1');
    expect(last().opening.resume).toBeNull();
  });
  it('loses and doubles no byte over cut sockets', () => {
    start();
    last().text('7', { session: 's', offset: 0, columns: 80, rows: 24, viewers: 1, reset: true });
    for (let at = 0; at < 20; at += 1) {
      const socket = last();
      socket.output(at * 2, 'ab');
      // Doubled by a server that sends from a little before.
      socket.output(at * 2, 'ab');
      socket.close();
      vi.advanceTimersByTime(400);
      last().accept();
      expect(last().opening.resume).toEqual({ session: 's', offset: at * 2 + 2 });
      last().text('7', { session: 's', offset: at * 2 + 2 });
    }
    expect(shown).toBe('ab'.repeat(20));
  });
  it('asks again where bytes are missing between', () => {
    start();
    last().text('7', { session: 's', offset: 0 });
    last().output(0, 'ab');
    last().output(5, 'xx');
    expect(shown).toBe('ab');
    vi.advanceTimersByTime(400);
    last().accept();
    expect(last().opening.resume.offset).toBe(2);
  });
  it('clears the screen for another session and where it was resynchronised', () => {
    start();
    last().text('7', { session: 's', offset: 0 });
    last().output(0, 'old');
    last().text('6', { offset: 100 });
    expect(shown).toBe('');
    last().output(100, 'new');
    expect(shown).toBe('new');
    last().text('7', { session: 'other', offset: 0, reset: true });
    expect(shown).toBe('');
  });
  it('sends what was typed while it was cut, to the same shell only', () => {
    const link = start();
    const typed = () => last().sent.filter((frame) => frame[0] === 0x30).map((frame) => new TextDecoder().decode(frame.slice(1)));
    expect(link.input('too early')).toBe(false);
    last().text('7', { session: 's', offset: 0 });
    last().close();
    expect(link.input('pwd')).toBe(true);
    expect(link.input('x'.repeat(5000))).toBe(false);
    vi.advanceTimersByTime(400);
    last().accept();
    link.input('\r');
    expect(typed()).toEqual([]);
    last().text('7', { session: 's', offset: 0 });
    expect(typed()).toEqual(['pwd', '\r']);
    last().close();
    link.input('rm important');
    vi.advanceTimersByTime(400);
    last().accept();
    last().text('7', { session: 'another machine', offset: 0, reset: true });
    expect(typed()).toEqual([]);
  });
  it('acknowledges every 64 KiB and when idle', () => {
    start();
    last().text('7', { session: 's', offset: 0 });
    last().output(0, 'x'.repeat(70_000));
    expect(last().acknowledged).toEqual([70_000]);
    last().output(70_000, 'y');
    expect(last().acknowledged).toEqual([70_000]);
    vi.advanceTimersByTime(50);
    expect(last().acknowledged).toEqual([70_000, 70_001]);
  });
  it('waits longer and longer, at most five seconds and a quarter more', () => {
    start();
    for (let at = 0; at < 8; at += 1) {
      last().close();
      vi.advanceTimersByTime(6250);
      expect(FakeSocket.all.length).toBe(at + 2);
    }
    last().close();
    vi.advanceTimersByTime(3700);
    expect(FakeSocket.all.length).toBe(9);
  });
  it('does not wake what is suspended', () => {
    const link = start();
    link.hold();
    last().close();
    vi.advanceTimersByTime(60_000);
    expect(FakeSocket.all.length).toBe(1);
    link.open();
    expect(FakeSocket.all.length).toBe(2);
    link.close();
    expect(states[states.length - 1]).toBe('closed');
  });
});
