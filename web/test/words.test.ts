// The pure parts: commands of code blocks, secrets of addresses, events, errors, words and paths.

import { describe, expect, it } from 'vitest';
import { parseError } from '../src/shared/api';
import { baseOf } from '../src/shared/base';
import { parseSecret } from '../src/shared/entrance';
import { EventParser } from '../src/shared/events';
import { ago, clock, count, size, spoken } from '../src/shared/words';
import { commandsOf, languageOf } from '../src/workspace/commands';
import { joinPath, nameOf, parentOf } from '../src/workspace/paths';

describe('commands of a code block', () => {
  const check = (language: string, code: string, expected: string) => expect(commandsOf(language, code)).toBe(expected);

  it('are all lines of a script', () => {
    check('sh', 'cd ~\nls -l\n', 'cd ~\nls -l');
    check('bash', '\n# a comment stays\nls\n\n', '# a comment stays\nls');
  });
  it('are what follows the prompts of a recorded session', () => {
    check('console', '$ pwd\n/home/learner\n$ ls\nwelcome.txt\n', 'pwd\nls');
    check('console', '# id\nuid=0(root)\n', 'id');
    check('console', '$ cat <<X\n> one\n> X\none\n', 'cat <<X\none\nX');
    check('console', '$ echo a \\\n  b\na b\n', 'echo a \\\n  b');
    check('sh', '$ pwd\n/home\n', 'pwd');
    check('console', 'ls\n', 'ls');
  });
  it('never hold control characters, which could end a bracketed paste', () => check('sh', 'ls\x1b[201~\rpwd\x07\x9b', 'ls[201~\npwd'));
  it('have a language', () => {
    expect(languageOf('language-Bash other')).toBe('bash');
    expect(languageOf('')).toBe('');
  });
});

describe('the secret of an address', () => {
  const check = (input: string, expected: unknown) => expect(parseSecret(input)).toEqual(expected);
  it('is a token or the owner\'s key', () => {
    check('#token=a.b.c', { token: 'a.b.c' });
    check(' http://127.0.0.1:8080/#key=0123abc ', { key: '0123abc' });
    check('a_1.b-2.c', { token: 'a_1.b-2.c' });
    check('0123456789abcdef0123', { key: '0123456789abcdef0123' });
  });
  it('is none where there is none', () => {
    for (const input of ['', '#', '#hello', 'short', 'http://127.0.0.1:8080/', '#token=']) check(input, null);
  });
});

describe('server-sent events', () => {
  it('arrive whole from any pieces', () => {
    const stream = ': hello\n\nevent: state\ndata: {"a":1}\n\r\ndata: x\r\ndata: y\r\n\r\n';
    const whole = new EventParser().push(stream);
    expect(whole).toEqual([{ name: 'state', data: '{"a":1}' }, { name: 'message', data: 'x\ny' }]);
    const parser = new EventParser();
    expect([...stream].flatMap((each) => parser.push(each))).toEqual(whole);
  });
  it('have a largest size', () => expect(() => new EventParser().push('x'.repeat(5_000_000))).toThrow());
});

describe('errors', () => {
  it('are told in the server\'s words, as sentences', () => {
    const error = parseError(409, '{"error":{"code":"ChecksFailing","message":"two checks are missing","help":"read on","missing":["a",1]}}');
    expect([error.code, error.message, error.help, error.missing]).toEqual(['ChecksFailing', 'Two checks are missing.', 'Read on.', ['a']]);
  });
  it('never show a raw body', () => {
    for (const body of ['<html>stack at line 3', '', 'null', '{"error":"x"}', '{"error":null}']) {
      expect(parseError(502, body).message).toBe('The workspace does not answer at the moment.');
    }
  });
});

describe('words', () => {
  it('tell times', () => {
    expect([clock(7), clock(750), clock(3849), clock(-3)]).toEqual(['0:07', '12:30', '1:04:09', '0:00']);
    expect([spoken(30), spoken(3600), spoken(3900)]).toEqual(['1 minute', '1 hour', '1 hour 5 minutes']);
    const now = Date.parse('2026-01-02T00:00:00Z');
    expect([ago('2026-01-01T23:59:30Z', now), ago('2026-01-01T23:50:00Z', now), ago('2026-01-01T20:00:00Z', now), ago(null, now), ago('x', now)])
      .toEqual(['just now', '10 min ago', '4 h ago', '', '']);
  });
  it('tell sizes and counts', () => {
    expect([size(0), size(1023), size(1536), size(12 * 1024 * 1024)]).toEqual(['0 B', '1023 B', '1.5 KiB', '12 MiB']);
    expect([count(1, 'check'), count(2, 'check')]).toEqual(['1 check', '2 checks']);
  });
});

describe('paths', () => {
  it('are joined and taken apart', () => {
    expect([joinPath('/', 'a'), joinPath('/a', 'b')]).toEqual(['/a', '/a/b']);
    expect([parentOf('/a/b'), parentOf('/a'), parentOf('/'), parentOf('/a/')]).toEqual(['/a', '/', '/', '/']);
    expect(nameOf('/a/b.txt')).toBe('b.txt');
    expect([baseOf('/'), baseOf('/w/alice/'), baseOf('/w/alice/workspace.html')]).toEqual(['/', '/w/alice/', '/w/alice/']);
  });
});
