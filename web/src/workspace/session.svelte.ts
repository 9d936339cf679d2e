// The state of the learner's page: what the server last said, and the connection that keeps it so.
// Decides nothing about steps, checks or times; it only follows.

import { ApiError, explain, get, login, post, sentence } from '../shared/api';
import { parseJson, readEvents, type ServerEvent } from '../shared/events';
import type {
  Action, InstanceView, NavigateAnswer, Report, Step, StepText, TransitionEvent, WorkspaceState,
} from '../shared/types';

export type Connection = 'connecting' | 'connected' | 'reconnecting' | 'switching' | 'suspended' | 'failed';

/** A step switch under way, as far as this page knows. */
export interface Switch {
  target: string | null;
  reset: boolean;
  began: number;
  phase: string | null;
  message: string | null;
  /** The old workspace stopped answering, so an answer is the new one's. */
  away: boolean;
}

export interface Notice {
  id: number;
  text: string;
  bad: boolean;
}

export interface Refusal {
  message: string;
  help: string | null;
  missing: string[];
  code: string;
}

const ASLEEP = {
  Idle: 'Nobody used it for a while. Your progress is kept.',
  Expired: 'Its time is over. Your progress is kept.',
} as const;
const FIRST_DELAY_MS = 250;
const LAST_DELAY_MS = 5000;
const SWITCH_POLL_MS = 500;
const SWITCH_WATCH_MS = 1000;
/** After this, what runs is taken for what was wanted. */
const SWITCH_PATIENCE_MS = 20_000;

export class Session {
  state = $state.raw<WorkspaceState | null>(null);
  steps = $state.raw<Step[]>([]);
  /** The text that is shown, which need not be the current step's. */
  text = $state.raw<StepText | null>(null);
  textError = $state<string | null>(null);
  report = $state.raw<Report | null>(null);
  checking = $state(false);
  moving = $state(false);
  connection = $state<Connection>('connecting');
  switching = $state.raw<Switch | null>(null);
  /** What the gateway says; null behind no gateway. */
  instance = $state.raw<InstanceView | null>(null);
  reason = $state<string | null>(null);
  refusal = $state.raw<Refusal | null>(null);
  notices = $state.raw<Notice[]>([]);
  announcement = $state('');
  /** Server time minus this machine's, in milliseconds. */
  skew = $state(0);

  /** The step whose text is shown, where that is not the current one. */
  reading = $state<string | null>(null);
  #gateway = true;
  #delay = FIRST_DELAY_MS;
  #stop = new AbortController();
  #wake: (() => void) | null = null;
  #notice = 0;
  /** Counts streams of events, so that an older one's questions end with it. */
  #stream = 0;

  start(): void {
    void this.#follow();
    addEventListener('online', () => this.#wake?.());
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.#wake?.();
    });
  }

  close(): void {
    this.#stop.abort();
    this.#wake?.();
  }

  get current(): Step | undefined {
    return this.steps.find((step) => step.id === this.state?.step);
  }

  titleOf(id: string | null): string {
    if (!id) return '';
    const known = this.steps.find((step) => step.id === id) ?? this.instance?.steps.find((step) => step.id === id);
    return known?.title ?? id;
  }

  notify(text: string, bad = false): void {
    const notice = { id: ++this.#notice, text, bad };
    this.notices = [...this.notices.slice(-3), notice];
    setTimeout(() => this.dismiss(notice.id), bad ? 12_000 : 6000);
  }

  dismiss(id: number): void {
    this.notices = this.notices.filter((notice) => notice.id !== id);
  }

  announce(text: string): void {
    // The same words twice would not be spoken again.
    this.announcement = this.announcement === text ? `${text}\u00a0` : text;
  }

  // What the learner asks for.

  async navigate(action: Action, step?: string): Promise<void> {
    if (this.moving || this.switching) return;
    this.moving = true;
    this.refusal = null;
    try {
      const answer = await post<NavigateAnswer>('api/v1/navigate', step ? { action, step } : { action });
      if (answer?.transition) this.#beginSwitch(answer.target, action === 'reset', answer.message ?? null);
      else {
        if (answer?.message) this.notify(sentence(answer.message));
        await this.#load();
        if (answer && answer.target !== this.state?.step) await this.read(answer.target);
      }
    } catch (cause) {
      this.#refused(cause);
    } finally {
      this.moving = false;
    }
  }

  #refused(cause: unknown): void {
    if (cause instanceof ApiError && cause.status === 409) {
      this.refusal = { message: cause.message, help: cause.help, missing: cause.missing, code: cause.code };
      this.announce([cause.message, ...cause.missing].join(' '));
    } else this.notify(explain(cause), true);
  }

  async validate(): Promise<void> {
    if (this.checking) return;
    this.checking = true;
    this.refusal = null;
    this.announce('Checking.');
    try {
      const report = await post<Report>('api/v1/validate');
      if (report) this.#reported(report);
    } catch (cause) {
      this.notify(explain(cause), true);
      this.announce(explain(cause));
    } finally {
      this.checking = false;
    }
  }

  #reported(report: Report): void {
    if (report.startedAt === this.report?.startedAt && report.step === this.report.step) return;
    this.report = report;
    if (report.passed) this.refusal = null;
    const { passed, total } = report.counts;
    this.announce(report.passed ? `All ${total} checks passed.` : `${passed} of ${total} checks passed.`);
  }

  /** Shows a step's text without going there; null shows the current step's. */
  async read(step: string | null): Promise<void> {
    this.reading = step === this.state?.step ? null : step;
    await this.#loadText();
  }

  async extend(): Promise<void> {
    try {
      const path = this.connection === 'connected' || !this.#gateway ? 'api/v1/extend' : 'gateway/v1/extend';
      const answer = await post<{ expiresAt?: string }>(path, {});
      if (answer?.expiresAt && this.state) this.state = { ...this.state, expiresAt: answer.expiresAt, warning: false };
      this.notify('You have more time now.');
      if (this.connection === 'connected') await this.#load();
    } catch (cause) {
      this.notify(explain(cause), true);
    }
  }

  async resume(): Promise<void> {
    try {
      await post('gateway/v1/resume', {});
      this.connection = 'reconnecting';
      this.#delay = FIRST_DELAY_MS;
      this.#wake?.();
    } catch (cause) {
      this.notify(explain(cause), true);
    }
  }

  /** Resets the step; through the gateway where the workspace itself does not answer. */
  async reset(): Promise<void> {
    if (this.connection === 'connected') return this.navigate('reset');
    try {
      await post('gateway/v1/reset', {});
      this.#beginSwitch(this.state?.step ?? this.instance?.step ?? null, true, null);
    } catch (cause) {
      this.notify(explain(cause), true);
    }
  }

  /** Tries to connect now; what has failed is started again. */
  retry(): void {
    this.#delay = FIRST_DELAY_MS;
    if (this.connection === 'failed' && this.#gateway) void this.resume();
    else this.#wake?.();
  }

  // Following the server.

  async #follow(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        if (this.connection === 'connecting' || (await this.#reachable())) {
          await readEvents('api/v1/events', signal, () => void this.#opened(), (event) => this.#event(event));
        }
      } catch (cause) {
        if (cause instanceof ApiError && cause.status === 401) login();
        if (this.connection === 'connecting') this.connection = 'reconnecting';
      }
      if (signal.aborted) return;
      this.#stream += 1;
      if (this.switching) this.switching = { ...this.switching, away: true };
      if (this.connection === 'connected') this.connection = 'reconnecting';
      await this.#pause();
    }
  }

  #pause(): Promise<void> {
    const delay = this.switching ? SWITCH_POLL_MS : this.#delay * (0.75 + Math.random() / 2);
    this.#delay = Math.min(this.#delay * 2, LAST_DELAY_MS);
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, delay);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Asks the gateway, and says whether the workspace itself may be asked: a question resumes a suspended one. */
  async #reachable(): Promise<boolean> {
    if (!this.#gateway) return true;
    try {
      const instance = await get<InstanceView>('gateway/v1/state', AbortSignal.timeout(10_000));
      this.instance = instance;
      return this.#followInstance(instance);
    } catch (cause) {
      if (cause instanceof ApiError && cause.status === 404) {
        // Behind no gateway, or the instance is gone; the workspace itself will tell.
        if (!this.instance) this.#gateway = false;
        else {
          this.connection = 'failed';
          this.reason = 'This instance does not exist any more.';
          return false;
        }
        return true;
      }
      return false;
    }
  }

  #followInstance(instance: InstanceView): boolean {
    switch (instance.phase) {
      case 'Suspended':
        this.connection = 'suspended';
        this.reason = instance.message ? sentence(instance.message) : instance.asleep ? ASLEEP[instance.asleep] : 'Your progress is kept.';
        this.switching = null;
        return false;
      case 'Failed':
        this.connection = 'failed';
        this.reason = sentence(instance.message ?? 'the workspace could not be started');
        this.switching = null;
        this.announce(this.reason);
        return false;
      case 'Terminating':
        this.connection = 'failed';
        this.reason = 'This instance is being deleted.';
        return false;
      default:
        break;
    }
    if (this.state && instance.step && instance.step !== this.state.step && !this.switching) {
      this.#beginSwitch(instance.step, false, instance.message);
    }
    if (this.switching) {
      this.connection = 'switching';
      this.switching = {
        ...this.switching,
        phase: instance.phase,
        message: instance.message ?? this.switching.message,
      };
    } else if (this.connection !== 'connected') this.connection = this.state ? 'reconnecting' : 'connecting';
    return instance.phase === 'Running' || instance.phase === null;
  }

  #beginSwitch(target: string | null, reset: boolean, message: string | null): void {
    // The event and the answer tell of the same one.
    if (this.switching && this.switching.target === target && this.switching.reset === reset) return;
    this.switching = { target, reset, began: Date.now(), phase: null, message, away: false };
    this.connection = 'switching';
    this.refusal = null;
    this.announce(reset ? 'The step is being reset.' : `Moving to step ${this.titleOf(target)}.`);
    this.#wake?.();
    void this.#watchSwitch();
  }

  /** The stream is open: takes over what the server says, which may not be ready to say it yet. */
  async #opened(): Promise<void> {
    this.#delay = FIRST_DELAY_MS;
    const stream = ++this.#stream;
    while (stream === this.#stream && !this.#stop.signal.aborted) {
      try {
        await this.#load();
        return;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, SWITCH_POLL_MS));
      }
    }
  }

  /** Takes over what the server says, all of it. */
  async #load(): Promise<void> {
    const [state, { steps }] = await Promise.all([
      get<WorkspaceState>('api/v1/state'), get<{ steps: Step[] }>('api/v1/steps'),
    ]);
    this.steps = steps;
    this.#state(state);
    await Promise.all([this.#loadText(), this.#loadReport()]);
  }

  #state(state: WorkspaceState): void {
    const moved = this.state !== null && this.state.step !== state.step;
    this.skew = Date.parse(state.serverTime) - Date.now() || 0;
    this.state = state;
    if (moved) {
      this.report = null;
      this.refusal = null;
      this.reading = null;
    }
    if (this.switching) {
      if (!this.#arrived(this.switching, state)) return;
      this.announce(`Step ${state.position} of ${state.total}: ${state.stepTitle}.`);
    }
    this.switching = null;
    this.connection = 'connected';
    this.reason = null;
  }

  /** Whether this state is that of the workspace that was waited for. */
  #arrived(switching: Switch, state: WorkspaceState): boolean {
    if (!switching.reset && state.step === switching.target) return true;
    if (!switching.away) return false;
    return switching.reset || Date.now() - switching.began > SWITCH_PATIENCE_MS;
  }

  /** While a step switch is under way: its phase from the gateway, and the end of the waiting where nothing comes. */
  async #watchSwitch(): Promise<void> {
    const began = this.switching?.began;
    while (this.switching && this.switching.began === began && !this.#stop.signal.aborted) {
      await new Promise((resolve) => setTimeout(resolve, SWITCH_WATCH_MS));
      const { switching } = this;
      if (!switching || switching.began !== began) return;
      const late = Date.now() - switching.began > SWITCH_PATIENCE_MS;
      // Away, the following itself asks.
      if (switching.away) continue;
      const running = await this.#reachable();
      if (late && running && this.switching && !this.switching.away) await this.#load().catch(() => undefined);
      const settled = this.instance ? this.instance.phase === 'Running' : late;
      if (late && settled && running && this.switching && !this.switching.away) {
        this.switching = null;
        this.connection = 'connected';
        this.notify('The workspace stayed at its step.', true);
      }
    }
  }

  async #loadText(): Promise<void> {
    const id = this.reading ?? this.state?.step;
    if (!id) return;
    try {
      const text = await get<StepText>(`api/v1/steps/${encodeURIComponent(id)}`);
      if (id !== (this.reading ?? this.state?.step)) return;
      this.textError = null;
      if (text.id !== this.text?.id || text.digest !== this.text.digest) this.text = text;
    } catch (cause) {
      if (this.reading) {
        this.reading = null;
        this.notify(explain(cause), true);
      } else this.textError = explain(cause);
    }
  }

  async #loadReport(): Promise<void> {
    if (!this.current?.hasChecks) {
      this.report = null;
      return;
    }
    try {
      this.report = await get<Report | null>('api/v1/validate');
    } catch {
      // Without the last report the learner checks again.
    }
  }

  async #loadSteps(): Promise<void> {
    try {
      this.steps = (await get<{ steps: Step[] }>('api/v1/steps')).steps;
    } catch {
      // The next event brings them.
    }
  }

  #event(event: ServerEvent): void {
    switch (event.name) {
      case 'state': {
        const state = parseJson<WorkspaceState>(event.data);
        if (!state?.step) return;
        const moved = this.state !== null && this.state.step !== state.step;
        this.#state(state);
        if (moved) void this.#opened();
        return;
      }
      case 'steps':
      case 'progress':
        void this.#loadSteps();
        return;
      case 'content':
        void this.#loadSteps();
        void this.#loadText();
        return;
      case 'checks': {
        const report = parseJson<Report>(event.data);
        if (report?.counts && report.step === this.state?.step) this.#reported(report);
        return;
      }
      case 'transition': {
        const transition = parseJson<TransitionEvent>(event.data);
        if (transition) this.#transition(transition);
        return;
      }
      case 'message': {
        const message = parseJson<{ message?: string; text?: string }>(event.data);
        const text = message?.message ?? message?.text;
        if (text) {
          this.notify(text);
          this.announce(text);
        }
        return;
      }
      default:
        return;
    }
  }

  #transition(event: TransitionEvent): void {
    if (event.phase === 'Failed') {
      this.switching = null;
      this.connection = 'connected';
      this.notify(sentence(event.message ?? 'the step could not be started'), true);
      return;
    }
    if (this.switching) {
      this.switching = { ...this.switching, phase: event.phase, message: event.message ?? this.switching.message };
    } else if (event.to) {
      this.#beginSwitch(event.to, event.to === event.from, event.message);
    }
  }
}
