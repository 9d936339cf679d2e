// One viewer of the terminal: the socket, resuming by byte offset, acknowledging and reconnecting; with an image's own
// ttyd, which resumes nothing, a new screen for each connection.
// Draws nothing; a screen is handed in, so that it is tested without a browser.

import {
  decode, encodeAcknowledge, encodeInput, encodeOpening, encodeResize,
  type Hello, type Size,
} from './codec';
import {
  Pressure, TTYD_SUBPROTOCOL, decodeTtyd, encodeTtydInput, encodeTtydOpening, encodeTtydResize, subprotocolFor,
} from './ttyd';

/** What shows the output. */
export interface Screen {
  /** Shows bytes; calls back when they were processed. */
  write(bytes: Uint8Array, processed: () => void): void;
  /** Clears everything, after what was written before. */
  reset(): void;
}

export type LinkState = 'closed' | 'connecting' | 'open' | 'waiting';

export interface Exit {
  code: number | null;
  signal: string | null;
  restarting: boolean;
}

export interface Listener {
  state(state: LinkState): void;
  hello(hello: Hello): void;
  title(title: string): void;
  exit(exit: Exit): void;
  size(size: Size): void;
}

const ACKNOWLEDGE_EVERY = 64 * 1024;
const IDLE_MS = 40;
const FIRST_DELAY_MS = 250;
const LAST_DELAY_MS = 5000;
const LONGEST_TYPED = 4096;

export class TerminalLink {
  readonly #address: string;
  readonly #screen: Screen;
  readonly #listener: Listener;
  readonly #server: () => string | undefined;
  #size: Size;
  #socket: WebSocket | null = null;
  #wanted = false;
  #session: string | null = null;
  #received = 0;
  #processed = 0;
  #acknowledged = 0;
  #delay = FIRST_DELAY_MS;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #idle: ReturnType<typeof setTimeout> | undefined;
  #greeted = false;
  #typed: Uint8Array<ArrayBuffer>[] = [];
  #typedBytes = 0;
  /** Counts screens: what an older screen still processes must not be acknowledged for a newer one. */
  #epoch = 0;
  #ttyd = false;
  #pressure = new Pressure();
  #began = 0;
  /** The shell of ttyd has exited; the next one starts when somebody asks for it. */
  #ended = false;

  /** `server` says which terminal answers there, as the state names it; it is asked at each connection. */
  constructor(address: string, size: Size, screen: Screen, listener: Listener, server: () => string | undefined = () => undefined) {
    this.#address = address;
    this.#size = size;
    this.#screen = screen;
    this.#listener = listener;
    this.#server = server;
  }

  /** Connects, and again whenever the socket is cut, until `hold` or `close`. */
  open(): void {
    this.#wanted = true;
    if (this.#socket) return;
    clearTimeout(this.#retry);
    this.#delay = FIRST_DELAY_MS;
    this.#connect();
  }

  /** Keeps a socket that works and does not connect again when it is cut, e.g. so as not to wake what is suspended. */
  hold(): void {
    this.#wanted = false;
    clearTimeout(this.#retry);
  }

  close(): void {
    this.#wanted = false;
    clearTimeout(this.#retry);
    clearTimeout(this.#idle);
    const socket = this.#socket;
    this.#socket = null;
    this.#greeted = false;
    this.#takeTyped();
    socket?.close();
    this.#listener.state('closed');
  }

  /** Sends what was typed; kept for a moment where the socket was cut, for the same shell only. */
  input(data: string | Uint8Array): boolean {
    if (this.#ended && this.#wanted) {
      this.open();
      return false;
    }
    const frame = this.#ttyd ? encodeTtydInput(data) : encodeInput(data);
    if (this.#greeted && this.#send(frame)) return true;
    if (!this.#session || this.#typedBytes + frame.length > LONGEST_TYPED) return false;
    this.#typed.push(frame);
    this.#typedBytes += frame.length;
    return true;
  }

  #takeTyped(): Uint8Array<ArrayBuffer>[] {
    this.#typedBytes = 0;
    return this.#typed.splice(0);
  }

  resize(size: Size): void {
    this.#size = size;
    this.#send(this.#ttyd ? encodeTtydResize(size) : encodeResize(size));
  }

  get received(): number {
    return this.#received;
  }

  #connect(): void {
    this.#listener.state('connecting');
    this.#ended = false;
    const subprotocol = subprotocolFor(this.#server());
    this.#ttyd = subprotocol === TTYD_SUBPROTOCOL;
    if (this.#ttyd) this.#session = null;
    const socket = new WebSocket(this.#address, subprotocol);
    socket.binaryType = 'arraybuffer';
    this.#socket = socket;
    socket.onopen = () => {
      this.#began = Date.now();
      if (this.#ttyd) {
        socket.send(encodeTtydOpening(this.#size));
        return;
      }
      const resume = this.#session ? { session: this.#session, offset: this.#received } : null;
      socket.send(encodeOpening(this.#size, resume));
    };
    socket.onmessage = (message: MessageEvent) => {
      if (socket === this.#socket && message.data instanceof ArrayBuffer) (this.#ttyd ? this.#ttydFrame(message.data) : this.#frame(message.data));
    };
    socket.onclose = (event?: CloseEvent) => {
      if (socket === this.#socket) this.#lost(event?.code);
    };
  }

  #lost(code?: number): void {
    const greeted = this.#greeted;
    this.#socket = null;
    this.#greeted = false;
    clearTimeout(this.#idle);
    if (this.#ttyd && code === 1000) {
      this.#ended = true;
      this.#listener.state('closed');
      this.#listener.exit({ code: 0, signal: null, restarting: false });
      return;
    }
    this.#listener.state('waiting');
    if (!this.#wanted) return;
    // A shell of ttyd that fails at once would otherwise be started four times a second.
    if (this.#ttyd && greeted && Date.now() - this.#began > LAST_DELAY_MS) this.#delay = FIRST_DELAY_MS;
    // Spread out, so that a class does not return in one moment.
    const delay = this.#delay * (0.75 + Math.random() / 2);
    this.#delay = Math.min(this.#delay * 2, LAST_DELAY_MS);
    this.#retry = setTimeout(() => this.#connect(), delay);
  }

  #frame(data: ArrayBuffer): void {
    const frame = decode(data);
    switch (frame.kind) {
      case 'hello': {
        const { session, offset, reset } = frame.hello;
        if (reset || session !== this.#session || offset !== this.#received) this.#restart(offset);
        const typed = this.#takeTyped();
        if (session === this.#session) for (const each of typed) this.#send(each);
        this.#session = session;
        this.#greeted = true;
        this.#acknowledged = Math.min(this.#acknowledged, offset);
        this.#delay = FIRST_DELAY_MS;
        this.#listener.state('open');
        this.#listener.hello(frame.hello);
        return;
      }
      case 'output':
        this.#output(frame.offset, frame.bytes);
        return;
      case 'resynchronised':
        this.#restart(frame.offset);
        return;
      case 'title':
        this.#listener.title(frame.title);
        return;
      case 'exit':
        this.#listener.exit(frame);
        return;
      case 'size':
        this.#listener.size(frame.size);
        return;
      case 'unknown':
        return;
    }
  }

  #ttydFrame(data: ArrayBuffer): void {
    if (!this.#greeted) {
      // Its first frame says that there is a shell, a new one.
      this.#restart(0);
      this.#pressure = new Pressure();
      this.#greeted = true;
      this.#takeTyped();
      this.#listener.state('open');
      this.#listener.hello({ session: '', offset: 0, viewers: 1, reset: true, ...this.#size });
    }
    const frame = decodeTtyd(data);
    if (frame.kind === 'title') this.#listener.title(frame.title);
    if (frame.kind !== 'output' || !frame.bytes.length) return;
    const { length } = frame.bytes;
    const epoch = this.#epoch;
    const pause = this.#pressure.received(length);
    if (pause) this.#send(pause);
    this.#screen.write(frame.bytes, () => {
      if (epoch !== this.#epoch) return;
      const resume = this.#pressure.processed(length);
      if (resume) this.#send(resume);
    });
  }

  #output(offset: number, bytes: Uint8Array): void {
    if (offset > this.#received) {
      // Bytes are missing between: asking anew from the last known offset brings them.
      this.#socket?.close();
      return;
    }
    const fresh = bytes.subarray(this.#received - offset);
    if (!fresh.length) return;
    this.#received += fresh.length;
    const end = this.#received;
    const epoch = this.#epoch;
    this.#screen.write(fresh, () => {
      if (epoch !== this.#epoch) return;
      this.#processed = end;
      if (end - this.#acknowledged >= ACKNOWLEDGE_EVERY) this.#acknowledge();
      else this.#acknowledgeWhenIdle();
    });
  }

  #acknowledgeWhenIdle(): void {
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#acknowledge(), IDLE_MS);
  }

  #acknowledge(): void {
    clearTimeout(this.#idle);
    if (this.#processed <= this.#acknowledged) return;
    if (this.#send(encodeAcknowledge(this.#processed))) this.#acknowledged = this.#processed;
  }

  #restart(offset: number): void {
    this.#epoch += 1;
    this.#received = offset;
    this.#processed = offset;
    this.#acknowledged = offset;
    this.#screen.reset();
  }

  #send(frame: Uint8Array<ArrayBuffer>): boolean {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(frame);
    return true;
  }
}
