// A pretended gateway with one pretended workspace at /w/ada/, to develop the pages and to drive them in a browser.
// usage: node mock/server.mjs [PORT]      serves dist; run `npm run build` or `npm run watch` for it

import { createHash, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { WebSocketServer } from 'ws';
import { STEPS, results } from './content.mjs';
import { Files, Shell } from './shell.mjs';

export const KEY = 'mock-owner-key-0123456789';
export const TOKEN = 'mock.learner.token';
const CSP = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const TYPES = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml' };
const DIST = fileURLToPath(new URL('../dist/', import.meta.url));
const HOME = '/home/learner';
const iso = (at) => new Date(at).toISOString();

class Refusal extends Error {
  constructor(status, code, message, more = {}) {
    super(message);
    Object.assign(this, { status, code, more });
  }
}

export class Mock {
  constructor(options = {}) {
    this.switchMs = options.switchMs ?? 2500;
    this.gateway = options.gateway ?? true;
    this.phase = 'Running';
    this.message = null;
    this.at = 0;
    this.status = STEPS.map((_, at) => ({ status: at ? 'pending' : 'active', skipped: false }));
    this.expires = Date.now() + 55 * 60_000;
    this.warning = false;
    this.notes = {};
    this.report = null;
    this.deleted = false;
    this.extra = [];
    this.streams = new Set();
    this.homeStreams = new Set();
    this.sockets = new Set();
    this.requests = [];
    this.#boot();
  }

  #boot() {
    this.up = true;
    this.session = randomBytes(6).toString('hex');
    this.files = new Files();
    this.output = Buffer.alloc(0);
    this.size = { columns: 80, rows: 24 };
    this.#shell();
  }
  #shell() {
    this.shell = new Shell(this.files, (text) => this.#emit(text), 'skerry', (code) => {
      this.shell = null;
      this.frame('5' + JSON.stringify({ code, signal: null, restarting: false }));
    });
  }
  #emit(text) {
    const bytes = Buffer.from(text);
    const header = Buffer.alloc(9);
    header[0] = 0x30;
    header.writeBigUInt64BE(BigInt(this.output.length), 1);
    this.output = Buffer.concat([this.output, bytes]);
    this.frame(Buffer.concat([header, bytes]));
  }
  frame(data) { for (const socket of this.sockets) if (socket.ready) socket.send(Buffer.from(data)); }
  event(name, data) { for (const stream of this.streams) stream.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`); }
  homeEvent() { for (const stream of this.homeStreams) stream.write('event: instances\ndata: {}\n\n'); }

  /** Cuts every connection to the workspace, as when its container is gone. */
  down() {
    this.up = false;
    for (const stream of this.streams) stream.destroy();
    this.cut();
  }
  cut() { for (const socket of this.sockets) socket.terminate(); }
  setPhase(phase, message = null) {
    Object.assign(this, { phase, message });
    if (phase === 'Running') { if (!this.up) this.#boot(); } else if (['Suspended', 'Failed'].includes(phase)) this.down();
    this.homeEvent();
  }
  switchTo(at) {
    const from = STEPS[this.at].id;
    this.event('transition', { from, to: STEPS[at].id, phase: 'Transitioning', message: null });
    this.phase = 'Transitioning';
    this.homeEvent();
    setTimeout(() => {
      this.down();
      this.at = at;
      this.report = null;
      if (this.status[at].status === 'pending') this.status[at].status = 'active';
    }, Math.min(300, this.switchMs / 4));
    setTimeout(() => this.setPhase('Running'), this.switchMs);
  }

  state() {
    const step = STEPS[this.at];
    return {
      instance: 'uid-ada', workshop: { id: 'first-steps', name: 'First steps in the shell', version: '1.2.0' }, step: step.id, stepTitle: step.title,
      position: this.at + 1, total: STEPS.length, finished: this.status.every((each) => each.status === 'completed'), phase: 'Running', startedAt: iso(this.expires - 3_600_000),
      expiresAt: iso(this.expires), warning: this.warning, serverTime: iso(Date.now()), standalone: !this.gateway, canExtend: true, role: 'learner',
      terminal: { enabled: true, server: 'builtin' }, editor: true, files: true, home: HOME,
    };
  }
  step(at) {
    const { id, title, hasChecks, canSkip } = STEPS[at];
    const before = STEPS[at - 1];
    const canEnter = at === 0 || this.status[at].status !== 'pending' || this.status[at - 1].status === 'completed';
    return { id, title, position: at + 1, ...this.status[at], hasChecks, canSkip, canEnter, reason: canEnter ? null : `Complete “${before.title}” first` };
  }
  instance() {
    return {
      uid: 'uid-ada', namespace: 'default', name: 'ada', reference: 'ada', template: 'first-steps', owner: null, step: STEPS[this.at].id, steps: STEPS.map(({ id, title }) => ({ id, title })), phase: this.phase,
      message: this.message, startedAt: iso(this.expires - 3_600_000), expiresAt: iso(this.expires), warning: this.warning, lastActivityAt: iso(Date.now() - 90_000), suspended: this.phase === 'Suspended', hold: false,
      updateAvailable: false, progress: { completed: this.status.filter((each) => each.status === 'completed').length, total: STEPS.length }, url: '/w/ada/',
    };
  }
  instances() { return this.deleted ? this.extra : [this.instance(), ...this.extra]; }
  workshops() {
    const steps = STEPS.map(({ id, title }) => ({ id, title }));
    return [
      { id: 'first-steps', name: 'First steps in the shell', steps, ready: true, message: null, instances: this.instances().length },
      { id: 'users', name: 'Files, users and permissions', steps: ['Read the letters', 'Users and groups', 'The shared folder', 'Find the leak'].map((title) => ({ id: title, title })), ready: true, message: null, instances: 0 },
      { id: 'processes', name: 'Processes and services', steps: ['What is running', 'Signals', 'Start at boot'].map((title) => ({ id: title, title })), ready: false, message: 'Building the image of step 2 of 3', instances: 0 },
    ];
  }

  validate() {
    const all = results(STEPS[this.at], this.files);
    const of = (outcome) => all.filter((each) => each.outcome === outcome).length;
    const passed = of('passed') === all.length;
    this.report = { step: STEPS[this.at].id, passed, startedAt: iso(Date.now()), durationMs: 12, counts: { total: all.length, passed: of('passed'), failed: of('failed'), skipped: of('skipped'), errors: of('error') }, results: all };
    if (passed) this.status[this.at].status = 'completed';
    this.event('checks', this.report);
    this.event('steps', {});
    return this.report;
  }
  navigate({ action, step }) {
    const to = { next: this.at + 1, skip: this.at + 1, previous: this.at - 1, reset: this.at, goto: STEPS.findIndex((each) => each.id === step) }[action];
    if (action === 'next' || action === 'skip') {
      const { hasChecks, canSkip } = STEPS[this.at];
      if (action === 'next' && hasChecks && this.status[this.at].status !== 'completed' && !this.validate().passed) {
        throw new Refusal(409, 'ChecksFailing', 'this step is not completed yet', { missing: this.report.results.filter((each) => each.outcome !== 'passed').map((each) => each.message) });
      }
      if (action === 'skip' && !canSkip) throw new Refusal(409, 'SkipForbidden', 'this step cannot be skipped');
      this.status[this.at] = { status: 'completed', skipped: action === 'skip' && this.status[this.at].status !== 'completed' };
      if (to === STEPS.length) {
        this.event('state', this.state());
        return [200, { target: STEPS[this.at].id, transition: false, message: 'The workshop is finished.' }];
      }
    }
    if (!STEPS[to]) throw new Refusal(404, 'NoSuchStep', 'there is no such step');
    if (!this.step(to).canEnter) throw new Refusal(409, 'StepLocked', `complete "${STEPS[to - 1].title}" first`);
    if (!this.gateway) return [200, { target: STEPS[to].id, transition: false, message: 'This workspace stands alone; the text is shown, the machine stays.' }];
    this.switchTo(to);
    return [202, { target: STEPS[to].id, transition: true }];
  }

  async api(request, path, query, body) {
    const json = () => (body.length ? JSON.parse(body) : {});
    const route = `${request.method} ${path}`;
    const file = query.get('path') || HOME;
    if (route === 'GET state') return [200, this.state()];
    if (route === 'GET steps') return [200, { steps: STEPS.map((_, at) => this.step(at)) }];
    if (route === 'POST navigate') return this.navigate(json());
    if (route === 'POST validate') return [200, await new Promise((resolve) => setTimeout(() => resolve(this.validate()), 250))];
    if (route === 'GET validate') return [200, this.report];
    if (route === 'GET custom-state') return [200, { values: this.notes }];
    if (route === 'PUT custom-state/notes') { this.notes.notes = json().value; return [204]; }
    if (route === 'POST extend') { this.expires += 1_800_000; this.warning = false; this.event('state', this.state()); return [200, { expiresAt: iso(this.expires) }]; }
    if (route === 'POST terminal/restart') { this.#shell(); return [204]; }
    if (route === 'GET files') {
      if (this.files.entries.get(file) !== null && file !== '/' && file !== '/home') throw new Refusal(404, 'NoSuchFile', `there is no directory "${file}"`);
      return [200, { path: file, entries: this.files.list(file).map((name) => {
        const text = this.files.entries.get(file === '/' ? `/${name}` : `${file}/${name}`);
        return { name, kind: typeof text === 'string' ? 'file' : 'directory', size: text?.length ?? 0, mode: 420, modifiedAt: iso(Date.now() - 400_000) };
      }) }];
    }
    if (route === 'DELETE files') { this.files.entries.delete(file); return [204]; }
    if (route === 'POST files/directory') { this.files.entries.set(file, null); return [204]; }
    if (route === 'GET files/content') {
      const text = this.files.entries.get(file);
      if (typeof text !== 'string') throw new Refusal(404, 'NoSuchFile', `there is no file "${file}"`);
      return [200, Buffer.from(text), 'application/octet-stream', { ETag: this.files.etag(file) }];
    }
    if (route === 'PUT files/content') {
      const has = this.files.entries.has(file);
      const match = request.headers['if-match'];
      if ((request.headers['if-none-match'] === '*' && has) || (match && match !== this.files.etag(file))) throw new Refusal(412, 'Changed', 'the file has changed');
      this.files.write(file, body.toString());
      return [has ? 204 : 201, undefined, undefined, { ETag: this.files.etag(file) }];
    }
    if (route === 'GET files/archive') return [200, Buffer.from('archive'), 'application/gzip'];
    if (path === 'assets/lamp.svg') return [200, Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 180"><rect width="600" height="180" fill="#16283a"/><path d="M300 60L40 20v70zM300 60l260-40v70z" fill="#f0c674" opacity=".35"/><path d="M286 76h28l10 104h-48z" fill="#e8e4da"/><circle cx="300" cy="60" r="14" fill="#f0c674"/></svg>'), 'image/svg+xml'];
    const one = /^GET steps\/([\w-]+)$/.exec(route);
    const at = STEPS.findIndex((each) => each.id === one?.[1]);
    if (at >= 0) return [200, { ...this.step(at), html: STEPS[at].html, next: STEPS[at + 1]?.id ?? null, previous: STEPS[at - 1]?.id ?? null, digest: createHash('sha256').update(STEPS[at].html).digest('hex') }];
    throw new Refusal(404, 'NoSuchThing', 'there is no such thing');
  }

  control(request, path, body) {
    const route = `${request.method} ${path}`;
    if (route === 'GET workshops') return [200, { workshops: this.workshops() }];
    if (route === 'GET instances') return [200, { instances: this.instances() }];
    if (route === 'POST instances') { this.deleted = false; return [201, { instances: [{ ...this.instance(), template: JSON.parse(body).template }] }]; }
    if (route === 'DELETE instances/ada') { this.deleted = true; this.homeEvent(); return [204]; }
    if (route === 'POST instances/ada/suspend') { this.setPhase('Suspended', 'suspended by its owner'); return [204]; }
    if (route === 'POST instances/ada/resume') { this.setPhase('Running'); return [204]; }
    throw new Refusal(404, 'NoSuchThing', 'there is no such thing');
  }
  ownApi(request, path) {
    const route = `${request.method} ${path}`;
    if (!this.gateway) throw new Refusal(404, 'NoSuchThing', 'there is no gateway');
    if (route === 'GET state') return [200, this.instance()];
    if (route === 'POST resume') { this.phase = 'Provisioning'; setTimeout(() => this.setPhase('Running'), this.switchMs / 2); return [202]; }
    if (route === 'POST reset') { this.switchTo(this.at); return [202]; }
    if (route === 'POST extend') { this.expires += 1_800_000; return [200, { expiresAt: iso(this.expires) }]; }
    throw new Refusal(404, 'NoSuchThing', 'there is no such thing');
  }

  async handle(request, response) {
    const url = new URL(request.url, 'http://mock');
    this.requests.push(`${request.method} ${url.pathname}`);
    const base = url.pathname.startsWith('/w/ada/') ? '/w/ada/' : '/';
    const path = url.pathname.slice(base.length);
    const cookie = base === '/' ? 'workshop_owner=mock' : 'workshop_token=mock';
    const signedIn = (request.headers.cookie ?? '').includes(cookie);
    const answer = (status, value, type = 'application/json', headers = {}) => {
      const bytes = value === undefined ? undefined : Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value));
      response.writeHead(status, { ...(bytes ? { 'Content-Type': type } : {}), 'X-Content-Type-Options': 'nosniff', ...headers });
      response.end(bytes);
    };
    try {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const body = Buffer.concat(chunks);
      if (request.method === 'POST' && path === 'session') {
        const { token, key } = JSON.parse(body);
        if (base === '/' ? key !== KEY : token !== TOKEN) throw new Refusal(401, 'Refused', 'this is not valid');
        return answer(204, undefined, undefined, { 'Set-Cookie': `${cookie}; HttpOnly; SameSite=Strict; Path=${base}` });
      }
      if (path.startsWith('assets/') || path === '') {
        const page = signedIn ? (base === '/' ? 'home.html' : 'workspace.html') : 'login.html';
        const bytes = await readFile(DIST + (path || page).replaceAll('..', '')).catch(() => null);
        if (!bytes) throw new Refusal(404, 'NoSuchFile', 'there is no such file');
        return answer(path || signedIn ? 200 : 401, bytes, `${TYPES[(path || page).split('.').pop()]}; charset=utf-8`, { 'Content-Security-Policy': CSP });
      }
      if (!signedIn) throw new Refusal(401, 'Refused', 'a token is needed');
      if (path === 'control/v1/events') return this.stream(request, response, this.homeStreams);
      if (path.startsWith('control/v1/')) return answer(...this.control(request, path.slice(11), body));
      if (path.startsWith('gateway/v1/')) return answer(...this.ownApi(request, path.slice(11)));
      if (!path.startsWith('api/v1/')) throw new Refusal(404, 'NoSuchThing', 'there is no such thing');
      if (this.phase === 'Suspended') this.setPhase('Running');
      if (!this.up) throw new Refusal(502, 'NoAnswer', 'the workspace does not answer');
      if (path === 'api/v1/events') return this.stream(request, response, this.streams);
      return answer(...(await this.api(request, path.slice(7), url.searchParams, body)));
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      answer(cause.status, { error: { code: cause.code, message: cause.message, ...cause.more } });
    }
  }
  stream(request, response, streams) {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(': hello\n\n');
    streams.add(response);
    response.on('close', () => streams.delete(response));
  }

  attach(socket) {
    this.sockets.add(socket);
    socket.on('close', () => this.sockets.delete(socket));
    socket.on('message', (data) => {
      const kind = String.fromCharCode(data[0]);
      if (kind === '{') {
        const { columns, rows, resume } = JSON.parse(data);
        this.size = { columns, rows };
        const known = resume?.session === this.session && resume.offset <= this.output.length;
        const offset = known ? resume.offset : 0;
        socket.ready = true;
        socket.send(Buffer.from('7' + JSON.stringify({ session: this.session, offset, columns, rows, viewers: this.sockets.size, reset: !known })));
        const header = Buffer.alloc(9);
        header[0] = 0x30;
        header.writeBigUInt64BE(BigInt(offset), 1);
        if (this.output.length > offset) socket.send(Buffer.concat([header, this.output.subarray(offset)]));
      } else if (kind === '0') this.shell?.input(data.subarray(1).toString());
      else if (kind === '1') { this.size = JSON.parse(data.subarray(1)); this.frame('8' + JSON.stringify(this.size)); }
    });
  }

  async listen(port = 0) {
    this.server = createServer((request, response) => {
      this.handle(request, response).catch((cause) => { console.error(cause); response.destroy(); });
    });
    const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => 'workshop.tty.v1' });
    this.server.on('upgrade', (request, socket, head) => {
      if (!this.up || !(request.headers.cookie ?? '').includes('workshop_token=mock') || request.url !== '/w/ada/api/v1/terminal') { socket.destroy(); return; }
      sockets.handleUpgrade(request, socket, head, (each) => this.attach(each));
    });
    await new Promise((resolve) => this.server.listen(port, '127.0.0.1', resolve));
    return `http://127.0.0.1:${this.server.address().port}`;
  }
  close() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const address = await new Mock().listen(Number(process.argv[2] ?? 8090));
  console.log(`workshops: ${address}/#key=${KEY}\nworkspace: ${address}/w/ada/#token=${TOKEN}`);
}
