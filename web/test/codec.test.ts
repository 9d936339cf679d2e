// Frames of workshop.tty.v1, both ways.

import { describe, expect, it } from 'vitest';
import { decode, encodeAcknowledge, encodeInput, encodeOpening, encodeResize } from '../src/terminal/codec';

const bytes = (...parts: (string | number[])[]): ArrayBuffer =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === 'string' ? [...new TextEncoder().encode(part)] : part))).buffer;
const text = (frame: Uint8Array) => new TextDecoder().decode(frame);

describe('frames to the server', () => {
  it('begin with the opening as JSON', () => {
    expect(text(encodeOpening({ columns: 80, rows: 24 }, null))).toBe('{"columns":80,"rows":24,"resume":null}');
    expect(JSON.parse(text(encodeOpening({ columns: 1, rows: 2 }, { session: 'a', offset: 9 }))).resume).toEqual({ session: 'a', offset: 9 });
  });
  it('carry input as UTF-8 behind 0', () => {
    expect(text(encodeInput('é\r'))).toBe('0é\r');
    expect([...encodeInput(Uint8Array.of(0xff, 0))]).toEqual([0x30, 0xff, 0]);
  });
  it('carry the size behind 1', () => expect(text(encodeResize({ columns: 120, rows: 40 }))).toBe('1{"columns":120,"rows":40}'));
  it('acknowledge with eight bytes, big endian', () =>
    expect([...encodeAcknowledge(2 ** 40 + 258)]).toEqual([0x34, 0, 0, 1, 0, 0, 0, 1, 2]));
});

describe('frames from the server', () => {
  const check = (frame: ArrayBuffer, expected: unknown) => expect(decode(frame)).toEqual(expected);

  it('carry output with its offset', () =>
    check(bytes('0', [0, 0, 0, 0, 0, 1, 0, 0], 'hi'), { kind: 'output', offset: 65536, bytes: new Uint8Array(bytes('hi')) }));
  it('greet', () => {
    check(bytes('7{"session":"s","offset":5,"columns":80,"rows":24,"viewers":2,"reset":true}'),
      { kind: 'hello', hello: { session: 's', offset: 5, columns: 80, rows: 24, viewers: 2, reset: true } });
    check(bytes('7{"session":"s","offset":0}'),
      { kind: 'hello', hello: { session: 's', offset: 0, columns: 80, rows: 24, viewers: 1, reset: false } });
  });
  it('tell title, end, resynchronisation and size', () => {
    check(bytes('1vi'), { kind: 'title', title: 'vi' });
    check(bytes('5{"code":3,"signal":null,"restarting":true}'), { kind: 'exit', code: 3, signal: null, restarting: true });
    check(bytes('5{"code":null,"signal":"HUP"}'), { kind: 'exit', code: null, signal: 'HUP', restarting: false });
    check(bytes('6{"offset":77}'), { kind: 'resynchronised', offset: 77 });
    check(bytes('8{"columns":100,"rows":30}'), { kind: 'size', size: { columns: 100, rows: 30 } });
  });
  it('may be anything without harm', () => {
    const frames = ['', '0', '0abc', '7', '7[]', '7{"offset":1}', '7{"session":"s","offset":-1}', '6{"offset":"x"}', '8{"columns":0,"rows":1}', '8{"columns":99999,"rows":1}', 'z'];
    for (const frame of frames) expect(decode(bytes(frame)), frame).toEqual({ kind: 'unknown' });
    // An offset that a number cannot hold exactly.
    check(bytes('0', [255, 0, 0, 0, 0, 0, 0, 0], 'x'), { kind: 'unknown' });
  });
});
