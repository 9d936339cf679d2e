// Server-sent events over fetch, because EventSource hides the status of a refusal and when it is cut.
// Parses the stream; reconnecting and what events mean is the caller's.

import { send } from './api';

export interface ServerEvent {
  name: string;
  data: string;
}

const LONGEST = 4 * 1024 * 1024;

/** Feeds text in any pieces and gives the complete events in it. */
export class EventParser {
  #rest = '';
  #name = '';
  #data: string[] = [];

  push(text: string): ServerEvent[] {
    this.#rest += text;
    if (this.#rest.length > LONGEST) throw new Error('an event is longer than 4 MiB');
    const events: ServerEvent[] = [];
    for (;;) {
      const end = /\r\n|\n|\r/.exec(this.#rest);
      // A carriage return at the very end may be half of a pair.
      if (!end || (end[0] === '\r' && end.index === this.#rest.length - 1)) return events;
      const line = this.#rest.slice(0, end.index);
      this.#rest = this.#rest.slice(end.index + end[0].length);
      const event = this.#line(line);
      if (event) events.push(event);
    }
  }

  #line(line: string): ServerEvent | null {
    if (line === '') {
      const event = this.#data.length ? { name: this.#name || 'message', data: this.#data.join('\n') } : null;
      this.#name = '';
      this.#data = [];
      return event;
    }
    const colon = line.indexOf(':');
    if (colon === 0) return null;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') this.#name = value;
    if (field === 'data') this.#data.push(value);
    return null;
  }
}

/**
 * Reads events until the stream ends or is cut; throws ApiError where the server refuses. The server sends a comment
 * every 15 s, so a stream that says nothing for 40 s is dead.
 */
export async function readEvents(
  path: string,
  signal: AbortSignal,
  opened: () => void,
  event: (event: ServerEvent) => void,
): Promise<void> {
  const silence = new AbortController();
  const both = AbortSignal.any([signal, silence.signal]);
  const response = await send('GET', path, { signal: both, headers: { Accept: 'text/event-stream' } });
  const reader = response.body?.getReader();
  if (!reader) return;
  opened();
  const parser = new EventParser();
  const decoder = new TextDecoder();
  for (;;) {
    const timer = setTimeout(() => silence.abort(), 40_000);
    try {
      const { done, value } = await reader.read();
      if (done) return;
      for (const each of parser.push(decoder.decode(value, { stream: true }))) event(each);
    } catch {
      void reader.cancel().catch(() => undefined);
      return;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Parses JSON that may be broken; gives null then. */
export function parseJson<T>(text: string): T | null {
  try {
    return JSON.parse(text) as T;
  } catch {
    return null;
  }
}
